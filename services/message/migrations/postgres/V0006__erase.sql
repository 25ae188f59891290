-- Events never change, except that the body of a message or a shared file can be erased. What remains is the sender's name. It is cut
-- out as text, because the JSON functions of Postgres reject bodies with \u0000. The log writes the name first in each body.
CREATE FUNCTION erased_body(body text) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(substring(body FROM '^\{"sender_username":"(?:[^"\\]|\\.)*"'), '{"sender_username":""') || '}'
$$;

-- Erases the bodies of these events of a room, and returns how many it has erased; an event without a body counts no second time.
-- Room events stay. It runs as its owner, because the service may not update events; nothing that the caller can create precedes the
-- tables in its search path.
CREATE FUNCTION erase(partition_ integer, room uuid, seqs bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    erased bigint;
BEGIN
    UPDATE message.events e SET body = message.erased_body(e.body)
    WHERE e.partition = partition_ AND e.room_id = room AND e.seq = ANY (seqs) AND e.kind <> 3
        AND e.body <> message.erased_body(e.body);
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;
REVOKE ALL ON FUNCTION erase(integer, uuid, bigint[]) FROM PUBLIC;

-- For the owner of the table, too: with one database user, the service is the owner.
CREATE FUNCTION keep_events() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept message.events;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        kept := OLD;
        kept.body := message.erased_body(kept.body);
        IF OLD.kind <> 3 AND NEW IS NOT DISTINCT FROM kept THEN
            RETURN NEW;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM 1 FROM message.room_heads h
        WHERE h.partition = OLD.partition AND h.room_id = OLD.room_id AND h.closed;
        IF FOUND THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'events are append-only';
END
$$;
CREATE TRIGGER events_keep_rows BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION keep_events();
CREATE TRIGGER events_keep_all_rows BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION keep_events();

-- Takes from every role except the owner what the statements of the service do not need: default privileges grant more. Roles that
-- append may erase. Each `migrate` runs it, so that a new, an upgraded and a restored database end with the same privileges.
CREATE FUNCTION restrict_privileges() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT c.relname AS name, CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee,
            string_agg(DISTINCT acl.privilege_type, ', ') FILTER (WHERE acl.privilege_type <> ALL (needed.privileges)) AS excess,
            bool_or(acl.privilege_type = 'INSERT') AND acl.grantee <> 0 AS appends
        FROM (VALUES
            ('events', ARRAY['SELECT', 'INSERT']),
            ('deleted_files', ARRAY['SELECT', 'INSERT']),
            ('log', ARRAY['SELECT', 'INSERT', 'UPDATE']),
            ('partitions', ARRAY['SELECT', 'INSERT', 'UPDATE']),
            ('room_heads', ARRAY['SELECT', 'INSERT', 'UPDATE']),
            ('room_members', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'])
        ) AS needed (name, privileges)
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
REVOKE ALL ON FUNCTION restrict_privileges() FROM PUBLIC;
SELECT restrict_privileges();
