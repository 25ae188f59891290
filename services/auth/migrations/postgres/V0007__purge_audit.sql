-- Deletes at most this number of entries from before a time. It runs as its owner, because the service may not delete entries; the
-- triggers still protect those of the last 90 days.
CREATE FUNCTION purge_audit(before_ms bigint, most bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    purged bigint;
BEGIN
    DELETE FROM auth.audit WHERE id IN (
        SELECT a.id FROM auth.audit a WHERE a.at_ms < before_ms ORDER BY a.at_ms LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
REVOKE ALL ON FUNCTION purge_audit(bigint, bigint) FROM PUBLIC;

-- Leaves every role except the owner only the privileges to write and read the audit: default privileges grant more. Roles that
-- write entries may purge old ones. Each `migrate` runs it, so that a new, an upgraded and a restored database end with the same
-- privileges.
CREATE FUNCTION restrict_privileges() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee,
            string_agg(DISTINCT acl.privilege_type, ', ') FILTER (WHERE acl.privilege_type NOT IN ('SELECT', 'INSERT')) AS excess,
            bool_or(acl.privilege_type = 'INSERT') AND acl.grantee <> 0 AS writes
        FROM pg_class c, LATERAL aclexplode(c.relacl) AS acl
        WHERE c.relnamespace = 'auth'::regnamespace AND c.relname = 'audit' AND acl.grantee <> c.relowner
        GROUP BY acl.grantee
    LOOP
        IF held.excess IS NOT NULL THEN
            EXECUTE format('REVOKE %s ON auth.audit FROM %s CASCADE', held.excess, held.grantee);
        END IF;
        IF held.writes THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION auth.purge_audit(bigint, bigint) TO %s', held.grantee);
        END IF;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION restrict_privileges() FROM PUBLIC;
SELECT restrict_privileges();
