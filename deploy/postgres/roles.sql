-- Creates a schema and a role for each service. Only `confab_migrate` creates and alters tables; a service reads and
-- writes the tables of its own schema. The migrations restrict this further: the message service only adds to the log,
-- and the auth service only adds to the audit. Run this file once with psql, in an empty database, as an owner that may
-- create roles (a superuser, or the administrator of a managed server). The environment contains the passwords.
\set ON_ERROR_STOP on
\getenv migrate_password MIGRATE_DB_PASSWORD
\getenv auth_password AUTH_DB_PASSWORD
\getenv room_password ROOM_DB_PASSWORD
\getenv message_password MESSAGE_DB_PASSWORD
\getenv file_password FILE_DB_PASSWORD

BEGIN;
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
REVOKE ALL ON SCHEMA public FROM PUBLIC;

CREATE ROLE confab_migrate LOGIN PASSWORD :'migrate_password';
-- A role that is not a superuser must be a member of another role to configure that role's objects.
GRANT confab_migrate TO CURRENT_USER;
SELECT format('GRANT CONNECT ON DATABASE %I TO confab_migrate', current_database()) \gexec

-- Each line of the result is a statement, which \gexec runs.
SELECT format(statement, service, password, current_database())
FROM (VALUES ('auth', :'auth_password'), ('room', :'room_password'), ('message', :'message_password'), ('file', :'file_password'))
    AS services (service, password),
    unnest(ARRAY[
        'CREATE ROLE confab_%1$s LOGIN PASSWORD %2$L',
        'GRANT CONNECT ON DATABASE %3$I TO confab_%1$s',
        'CREATE SCHEMA %1$I AUTHORIZATION confab_migrate',
        'GRANT USAGE ON SCHEMA %1$I TO confab_%1$s',
        'ALTER DEFAULT PRIVILEGES FOR ROLE confab_migrate IN SCHEMA %1$I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO confab_%1$s'
    ]) WITH ORDINALITY AS statements (statement, number)
ORDER BY service, number \gexec
REVOKE confab_migrate FROM CURRENT_USER;
COMMIT;
