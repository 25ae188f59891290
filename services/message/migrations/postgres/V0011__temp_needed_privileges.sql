-- TEMP: stands in for the migration of the branch `unread`, which replaces it.
CREATE TABLE needed_privileges (name text PRIMARY KEY, privileges text[] NOT NULL);
INSERT INTO needed_privileges (name, privileges) VALUES
    ('events', ARRAY['SELECT', 'INSERT']),
    ('deleted_files', ARRAY['SELECT', 'INSERT']),
    ('log', ARRAY['SELECT', 'INSERT', 'UPDATE']),
    ('partitions', ARRAY['SELECT', 'INSERT', 'UPDATE']),
    ('room_heads', ARRAY['SELECT', 'INSERT', 'UPDATE']),
    ('room_members', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
    ('message_state', ARRAY['SELECT', 'INSERT', 'UPDATE']),
    ('message_edits', ARRAY['SELECT', 'INSERT']),
    ('change_runs', ARRAY['SELECT', 'INSERT', 'UPDATE']),
    ('file_uses', ARRAY['SELECT', 'INSERT', 'DELETE']),
    ('files_to_drop', ARRAY['SELECT', 'INSERT', 'DELETE']),
    ('needed_privileges', ARRAY['SELECT']);
CREATE OR REPLACE FUNCTION restrict_privileges() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT c.relname AS name, CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee,
            string_agg(DISTINCT acl.privilege_type, ', ') FILTER (WHERE acl.privilege_type <> ALL (needed.privileges)) AS excess,
            bool_or(acl.privilege_type = 'INSERT') AND acl.grantee <> 0 AS appends
        FROM message.needed_privileges AS needed
        JOIN pg_class c ON c.relnamespace = 'message'::regnamespace AND c.relname = needed.name,
        LATERAL aclexplode(c.relacl) AS acl
        WHERE acl.grantee <> c.relowner
        GROUP BY c.relname, acl.grantee
    LOOP
        IF held.excess IS NOT NULL THEN
            EXECUTE format('REVOKE %s ON message.%I FROM %s CASCADE', held.excess, held.name, held.grantee);
        END IF;
        IF held.name = 'events' AND held.appends THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION message.erase(integer, uuid, bigint[]) TO %s', held.grantee);
        END IF;
    END LOOP;
END
$$;
SELECT restrict_privileges();
