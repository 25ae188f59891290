--
-- PostgreSQL database dump
--

\restrict Qt8ydcV14BqJg7bCjccB8JF8agQ4HuW8AY5AaHC9eKXBrCNdFY4czbWZqm049jC

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: auth; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA auth;


--
-- Name: file; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA file;


--
-- Name: message; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA message;


--
-- Name: room; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA room;


--
-- Name: append_events(integer[], uuid[], smallint[], uuid[], uuid[], text[], text[], boolean[], bigint); Type: FUNCTION; Schema: message; Owner: -
--

CREATE FUNCTION message.append_events(partitions_ integer[], rooms uuid[], kinds smallint[], ids uuid[], senders uuid[], client_ids text[], bodies text[], closing boolean[], created bigint) RETURNS TABLE(epoch uuid, fresh boolean, closed boolean, event_position bigint, event_seq bigint, first_id uuid, first_kind smallint, first_body text, first_created_at bigint)
    LANGUAGE plpgsql
    SET lock_timeout TO '100ms'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
#variable_conflict use_column
BEGIN
    -- In rising order, so that no two appends wait for each other. Held until the commit: commit order is number order.
    PERFORM 1 FROM partitions p WHERE p.partition = ANY (partitions_) ORDER BY p.partition FOR UPDATE;

    RETURN QUERY
    WITH judged AS (
        SELECT b.*, p.head, coalesce(h.seq, 0) AS room_head,
            e.position AS first_position, e.seq AS first_seq, e.id AS first_id, e.kind AS first_kind, e.body AS first_body,
            e.created_at AS first_created_at,
            coalesce(h.closed, false) OR coalesce(bool_or(b.closes AND e.position IS NULL) OVER (
                PARTITION BY b.room_id ORDER BY b.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS closed
        FROM unnest(partitions_, rooms, kinds, ids, senders, client_ids, bodies, closing) WITH ORDINALITY
            AS b (partition, room_id, kind, id, sender_id, client_id, body, closes, n)
        JOIN partitions p ON p.partition = b.partition
        LEFT JOIN room_heads h ON h.partition = b.partition AND h.room_id = b.room_id
        LEFT JOIN LATERAL (
            SELECT * FROM events i
            WHERE (i.partition, i.room_id, i.sender_id, i.client_id) >= (b.partition, b.room_id, b.sender_id, b.client_id)
            ORDER BY i.partition, i.room_id, i.sender_id, i.client_id LIMIT 1
        ) e ON e.partition = b.partition AND e.room_id = b.room_id AND e.sender_id = b.sender_id AND e.client_id = b.client_id
    ), numbered AS (
        SELECT j.*, j.first_position IS NULL AND NOT j.closed AS fresh,
            j.head + count(*) FILTER (WHERE j.first_position IS NULL AND NOT j.closed) OVER (PARTITION BY j.partition ORDER BY j.n) AS position,
            j.room_head + count(*) FILTER (WHERE j.first_position IS NULL AND NOT j.closed) OVER (PARTITION BY j.partition, j.room_id ORDER BY j.n) AS seq
        FROM judged j
    ), inserted AS (
        INSERT INTO events (partition, position, room_id, seq, kind, id, sender_id, client_id, body, created_at)
        SELECT partition, position, room_id, seq, kind, id, sender_id, client_id, body, created FROM numbered WHERE fresh
    ), moved AS (
        UPDATE partitions p SET head = f.head
        FROM (SELECT partition, max(position) AS head FROM numbered WHERE fresh GROUP BY partition) f WHERE p.partition = f.partition
    ), moved_rooms AS (
        INSERT INTO room_heads AS h (partition, room_id, seq, closed)
        SELECT partition, room_id, max(seq), bool_or(closes) FROM numbered WHERE fresh GROUP BY partition, room_id
        ON CONFLICT (partition, room_id) DO UPDATE SET seq = excluded.seq, closed = excluded.closed
    )
    SELECT (SELECT l.epoch FROM log l), fresh, first_position IS NULL AND closed,
        coalesce(first_position, position), coalesce(first_seq, seq), first_id, first_kind, first_body, first_created_at
    FROM numbered ORDER BY n;
END
$$;


--
-- Name: search_pieces(text); Type: FUNCTION; Schema: room; Owner: -
--

CREATE FUNCTION room.search_pieces(search text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
    SELECT array_agg(first) || array_agg(first || second) || array_agg(first || second || third)
    FROM (
        SELECT first, lead(first, 1, '') OVER text AS second, lead(first, 2, '') OVER text AS third
        FROM unnest(string_to_array(search, NULL)) WITH ORDINALITY AS characters (first, place) WINDOW text AS (ORDER BY place)
    ) AS pieces
$$;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: refinery_schema_history; Type: TABLE; Schema: auth; Owner: -
--

CREATE TABLE auth.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);


--
-- Name: revocation_head; Type: TABLE; Schema: auth; Owner: -
--

CREATE TABLE auth.revocation_head (
    single boolean DEFAULT true NOT NULL,
    number bigint NOT NULL,
    CONSTRAINT revocation_head_single_check CHECK (single)
);


--
-- Name: revocations; Type: TABLE; Schema: auth; Owner: -
--

CREATE TABLE auth.revocations (
    number bigint NOT NULL,
    session_id uuid NOT NULL,
    user_id uuid NOT NULL,
    expires_at_ms bigint NOT NULL
);


--
-- Name: users; Type: TABLE; Schema: auth; Owner: -
--

CREATE TABLE auth.users (
    id uuid NOT NULL,
    username text NOT NULL,
    username_folded text NOT NULL COLLATE pg_catalog."C",
    password_hash text NOT NULL,
    created_at_ms bigint NOT NULL,
    username_skeleton text COLLATE pg_catalog."C"
);


--
-- Name: files; Type: TABLE; Schema: file; Owner: -
--

CREATE TABLE file.files (
    id uuid NOT NULL,
    name text NOT NULL,
    size bigint NOT NULL,
    content_type text NOT NULL,
    sha256 text NOT NULL,
    safe_inline boolean NOT NULL,
    uploader_id uuid NOT NULL,
    uploader_name text NOT NULL,
    created_at_ms bigint NOT NULL,
    link_key bytea NOT NULL,
    room_id uuid,
    upload_room uuid NOT NULL,
    client_message_id text,
    event_id uuid,
    ready boolean NOT NULL
);


--
-- Name: forgets; Type: TABLE; Schema: file; Owner: -
--

CREATE TABLE file.forgets (
    file_id uuid NOT NULL,
    room_id uuid NOT NULL
);


--
-- Name: installation; Type: TABLE; Schema: file; Owner: -
--

CREATE TABLE file.installation (
    one boolean NOT NULL,
    id text NOT NULL,
    turn text NOT NULL,
    next text NOT NULL,
    CONSTRAINT installation_one_check CHECK (one)
);


--
-- Name: refinery_schema_history; Type: TABLE; Schema: file; Owner: -
--

CREATE TABLE file.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);


--
-- Name: unwanted_objects; Type: TABLE; Schema: file; Owner: -
--

CREATE TABLE file.unwanted_objects (
    id uuid NOT NULL
);


--
-- Name: deleted_files; Type: TABLE; Schema: message; Owner: -
--

CREATE TABLE message.deleted_files (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    file_id uuid NOT NULL
);


--
-- Name: events; Type: TABLE; Schema: message; Owner: -
--

CREATE TABLE message.events (
    partition integer NOT NULL,
    "position" bigint NOT NULL,
    room_id uuid NOT NULL,
    seq bigint NOT NULL,
    kind smallint NOT NULL,
    id uuid NOT NULL,
    sender_id uuid NOT NULL,
    client_id text NOT NULL,
    body text NOT NULL,
    created_at bigint NOT NULL
);


--
-- Name: log; Type: TABLE; Schema: message; Owner: -
--

CREATE TABLE message.log (
    one boolean DEFAULT true NOT NULL,
    epoch uuid NOT NULL,
    fingerprint text NOT NULL,
    partitions integer NOT NULL,
    CONSTRAINT log_one_check CHECK (one)
);


--
-- Name: partitions; Type: TABLE; Schema: message; Owner: -
--

CREATE TABLE message.partitions (
    partition integer NOT NULL,
    head bigint NOT NULL
)
WITH (fillfactor='10', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0', vacuum_truncate='false');


--
-- Name: refinery_schema_history; Type: TABLE; Schema: message; Owner: -
--

CREATE TABLE message.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);


--
-- Name: room_heads; Type: TABLE; Schema: message; Owner: -
--

CREATE TABLE message.room_heads (
    partition integer NOT NULL,
    room_id uuid NOT NULL,
    seq bigint NOT NULL,
    closed boolean DEFAULT false NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0', vacuum_truncate='false');


--
-- Name: outbox; Type: TABLE; Schema: room; Owner: -
--

CREATE TABLE room.outbox (
    room_id uuid NOT NULL,
    number bigint NOT NULL,
    id uuid NOT NULL,
    sender_id uuid NOT NULL,
    sender_name text NOT NULL,
    event text NOT NULL,
    data text NOT NULL,
    closes_room boolean NOT NULL
);


--
-- Name: refinery_schema_history; Type: TABLE; Schema: room; Owner: -
--

CREATE TABLE room.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);


--
-- Name: room_ids; Type: TABLE; Schema: room; Owner: -
--

CREATE TABLE room.room_ids (
    id uuid NOT NULL
);


--
-- Name: rooms; Type: TABLE; Schema: room; Owner: -
--

CREATE TABLE room.rooms (
    id uuid NOT NULL,
    name text NOT NULL,
    folded_name text NOT NULL,
    description text NOT NULL,
    search text NOT NULL,
    owner_id uuid NOT NULL,
    owner_name text NOT NULL,
    created_at_ms bigint NOT NULL,
    revision bigint NOT NULL
);


--
-- Data for Name: refinery_schema_history; Type: TABLE DATA; Schema: auth; Owner: -
--

INSERT INTO auth.refinery_schema_history VALUES (1, 'init', '2026-11-30T16:43:43.390942994Z', '15696391463344801600');
INSERT INTO auth.refinery_schema_history VALUES (2, 'skeletons', '2026-11-30T16:43:43.39508381Z', '15139558877046651162');


--
-- Data for Name: revocation_head; Type: TABLE DATA; Schema: auth; Owner: -
--

INSERT INTO auth.revocation_head VALUES (true, 1);


--
-- Data for Name: revocations; Type: TABLE DATA; Schema: auth; Owner: -
--

INSERT INTO auth.revocations VALUES (1, '01a22d57-44cf-735c-9de2-404c26384da5', '01a22d57-4469-75d6-b6c5-10fa4376f23f', 1796143423000);


--
-- Data for Name: users; Type: TABLE DATA; Schema: auth; Owner: -
--

INSERT INTO auth.users VALUES ('01a22d57-444e-753f-89c2-7f4f2d27f014', 'ada', 'ada', '$argon2id$v=19$m=19456,t=2,p=1$//ROOpWFLkUElCF0Io2zfA$PcyAnn+dLozI2fYWa0DnH7mlHEm1bFp/HEt4wPOp1SE', 1796057023590, 'ada');
INSERT INTO auth.users VALUES ('01a22d57-4469-75d6-b6c5-10fa4376f23f', 'bob', 'bob', '$argon2id$v=19$m=19456,t=2,p=1$HmbBsUWx8yLyU2MJpO+tnw$GGy3OCDrpC6nU6vMZUCKQ3PAFABzG6kMuEfAP2aJLs8', 1796057023607, 'bob');


--
-- Data for Name: files; Type: TABLE DATA; Schema: file; Owner: -
--

INSERT INTO file.files VALUES ('01a22d57-44a4-74f1-a1bd-a72493b3d026', 'leaf.txt', 7, 'text/plain', 'a1b9dd357a085568ed3ba568f3dbae9a33a07454ffd4b6133066790292427bb1', false, '01a22d57-4469-75d6-b6c5-10fa4376f23f', 'bob', 1796057023653, '\x370003b25e92fb0b208acbebf208f10cecb796d2fdf74dba54b4640c760dd082', '01a22d57-447a-7347-bada-631a30ff643b', '01a22d57-447a-7347-bada-631a30ff643b', NULL, '01a22d57-44b9-7185-9c60-281050b9580b', true);


--
-- Data for Name: forgets; Type: TABLE DATA; Schema: file; Owner: -
--



--
-- Data for Name: installation; Type: TABLE DATA; Schema: file; Owner: -
--

INSERT INTO file.installation VALUES (true, '01a22d57-43f7-7244-beb6-6f3396915364', '01a22d57-43f7-7244-beb6-6f34877277c9', '01a22d57-43f7-7244-beb6-6f35004591f3');


--
-- Data for Name: refinery_schema_history; Type: TABLE DATA; Schema: file; Owner: -
--

INSERT INTO file.refinery_schema_history VALUES (1, 'init', '2026-11-30T16:43:43.460557693Z', '9250243165562254866');
INSERT INTO file.refinery_schema_history VALUES (2, 'installation', '2026-11-30T16:43:43.465143703Z', '15857803090259188034');


--
-- Data for Name: unwanted_objects; Type: TABLE DATA; Schema: file; Owner: -
--



--
-- Data for Name: deleted_files; Type: TABLE DATA; Schema: message; Owner: -
--



--
-- Data for Name: events; Type: TABLE DATA; Schema: message; Owner: -
--

INSERT INTO message.events VALUES (24, 1, '01a22d57-447f-7040-b045-6e40e797b0a6', 1, 1, '01a22d57-4481-77cc-b736-e51ab2a9d757', '01a22d57-4469-75d6-b6c5-10fa4376f23f', 'i:01a22d57-4481-77cc-b736-e51ab2a9d757', '{"sender_username":"bob","content":"x"}', 1796057023618);
INSERT INTO message.events VALUES (24, 2, '01a22d57-447f-7040-b045-6e40e797b0a6', 2, 3, '01a22d57-4488-77d9-96e4-fafa8b50030e', '01a22d57-4469-75d6-b6c5-10fa4376f23f', 'i:01a22d57-4488-77d9-96e4-fafa8b50030e', '{"sender_username":"bob","event":"roomDeleted","data":"{}"}', 1796057023625);
INSERT INTO message.events VALUES (25, 1, '01a22d57-447a-7347-bada-631a30ff643b', 1, 1, '01a22d57-448f-71ea-9fb2-d1d4ddbf7f40', '01a22d57-4469-75d6-b6c5-10fa4376f23f', 'c:m1', '{"sender_username":"bob","content":"number 1"}', 1796057023632);
INSERT INTO message.events VALUES (25, 2, '01a22d57-447a-7347-bada-631a30ff643b', 2, 1, '01a22d57-4495-76e2-a76f-68081283de32', '01a22d57-444e-753f-89c2-7f4f2d27f014', 'c:m2', '{"sender_username":"ada","content":"number 2"}', 1796057023637);
INSERT INTO message.events VALUES (25, 3, '01a22d57-447a-7347-bada-631a30ff643b', 3, 1, '01a22d57-449a-76a3-95b8-8c34491b4ac6', '01a22d57-4469-75d6-b6c5-10fa4376f23f', 'c:m3', '{"sender_username":"bob","content":"number 3"}', 1796057023642);
INSERT INTO message.events VALUES (25, 4, '01a22d57-447a-7347-bada-631a30ff643b', 4, 1, '01a22d57-449b-73d7-84c0-deacc30e1a6a', '01a22d57-444e-753f-89c2-7f4f2d27f014', 'c:m4', '{"sender_username":"ada","content":"number 4"}', 1796057023644);
INSERT INTO message.events VALUES (25, 5, '01a22d57-447a-7347-bada-631a30ff643b', 5, 1, '01a22d57-449d-7439-9c91-c95466b5dbe1', '01a22d57-4469-75d6-b6c5-10fa4376f23f', 'c:m5', '{"sender_username":"bob","content":"number 5"}', 1796057023645);
INSERT INTO message.events VALUES (25, 6, '01a22d57-447a-7347-bada-631a30ff643b', 6, 3, '01a22d57-449f-72d0-8b41-384b0ce23579', '01a22d57-444e-753f-89c2-7f4f2d27f014', 'i:01a22d57-449f-72d0-8b41-384b0ce23579', '{"sender_username":"ada","event":"roomUpdated","data":"{\"name\":\"Tea\",\"description\":\"Green, black and white\"}"}', 1796057023648);
INSERT INTO message.events VALUES (25, 7, '01a22d57-447a-7347-bada-631a30ff643b', 7, 2, '01a22d57-44b9-7185-9c60-281050b9580b', '01a22d57-4469-75d6-b6c5-10fa4376f23f', 'i:01a22d57-44b9-7185-9c60-281050b9580b', '{"sender_username":"bob","files":[{"id":"01a22d57-44a4-74f1-a1bd-a72493b3d026","name":"leaf.txt","size":7,"content_type":"text/plain","sha256":"a1b9dd357a085568ed3ba568f3dbae9a33a07454ffd4b6133066790292427bb1","uploader":"01a22d57-4469-75d6-b6c5-10fa4376f23f","uploader_username":"bob","created_at_ms":1796057023653,"safe_inline":false}]}', 1796057023678);


--
-- Data for Name: log; Type: TABLE DATA; Schema: message; Owner: -
--

INSERT INTO message.log VALUES (true, '01a22d57-43c2-7049-b324-706946f199ba', '7714006150141715632:00000001', 64);


--
-- Data for Name: partitions; Type: TABLE DATA; Schema: message; Owner: -
--

INSERT INTO message.partitions VALUES (0, 0);
INSERT INTO message.partitions VALUES (1, 0);
INSERT INTO message.partitions VALUES (2, 0);
INSERT INTO message.partitions VALUES (3, 0);
INSERT INTO message.partitions VALUES (4, 0);
INSERT INTO message.partitions VALUES (5, 0);
INSERT INTO message.partitions VALUES (6, 0);
INSERT INTO message.partitions VALUES (7, 0);
INSERT INTO message.partitions VALUES (8, 0);
INSERT INTO message.partitions VALUES (9, 0);
INSERT INTO message.partitions VALUES (10, 0);
INSERT INTO message.partitions VALUES (11, 0);
INSERT INTO message.partitions VALUES (12, 0);
INSERT INTO message.partitions VALUES (13, 0);
INSERT INTO message.partitions VALUES (14, 0);
INSERT INTO message.partitions VALUES (15, 0);
INSERT INTO message.partitions VALUES (16, 0);
INSERT INTO message.partitions VALUES (17, 0);
INSERT INTO message.partitions VALUES (18, 0);
INSERT INTO message.partitions VALUES (19, 0);
INSERT INTO message.partitions VALUES (20, 0);
INSERT INTO message.partitions VALUES (21, 0);
INSERT INTO message.partitions VALUES (22, 0);
INSERT INTO message.partitions VALUES (23, 0);
INSERT INTO message.partitions VALUES (26, 0);
INSERT INTO message.partitions VALUES (27, 0);
INSERT INTO message.partitions VALUES (28, 0);
INSERT INTO message.partitions VALUES (29, 0);
INSERT INTO message.partitions VALUES (30, 0);
INSERT INTO message.partitions VALUES (31, 0);
INSERT INTO message.partitions VALUES (32, 0);
INSERT INTO message.partitions VALUES (33, 0);
INSERT INTO message.partitions VALUES (34, 0);
INSERT INTO message.partitions VALUES (35, 0);
INSERT INTO message.partitions VALUES (25, 7);
INSERT INTO message.partitions VALUES (24, 2);
INSERT INTO message.partitions VALUES (36, 0);
INSERT INTO message.partitions VALUES (37, 0);
INSERT INTO message.partitions VALUES (38, 0);
INSERT INTO message.partitions VALUES (39, 0);
INSERT INTO message.partitions VALUES (40, 0);
INSERT INTO message.partitions VALUES (41, 0);
INSERT INTO message.partitions VALUES (42, 0);
INSERT INTO message.partitions VALUES (43, 0);
INSERT INTO message.partitions VALUES (44, 0);
INSERT INTO message.partitions VALUES (45, 0);
INSERT INTO message.partitions VALUES (46, 0);
INSERT INTO message.partitions VALUES (47, 0);
INSERT INTO message.partitions VALUES (48, 0);
INSERT INTO message.partitions VALUES (49, 0);
INSERT INTO message.partitions VALUES (50, 0);
INSERT INTO message.partitions VALUES (51, 0);
INSERT INTO message.partitions VALUES (52, 0);
INSERT INTO message.partitions VALUES (53, 0);
INSERT INTO message.partitions VALUES (54, 0);
INSERT INTO message.partitions VALUES (55, 0);
INSERT INTO message.partitions VALUES (56, 0);
INSERT INTO message.partitions VALUES (57, 0);
INSERT INTO message.partitions VALUES (58, 0);
INSERT INTO message.partitions VALUES (59, 0);
INSERT INTO message.partitions VALUES (60, 0);
INSERT INTO message.partitions VALUES (61, 0);
INSERT INTO message.partitions VALUES (62, 0);
INSERT INTO message.partitions VALUES (63, 0);


--
-- Data for Name: refinery_schema_history; Type: TABLE DATA; Schema: message; Owner: -
--

INSERT INTO message.refinery_schema_history VALUES (1, 'init', '2026-11-30T16:43:43.412084106Z', '934235544961888850');
INSERT INTO message.refinery_schema_history VALUES (2, 'deleted_files', '2026-11-30T16:43:43.417507675Z', '14722542730672162804');
INSERT INTO message.refinery_schema_history VALUES (3, 'lock_timeout', '2026-11-30T16:43:43.418555187Z', '7373247645541585247');
INSERT INTO message.refinery_schema_history VALUES (4, 'identity', '2026-11-30T16:43:43.418895775Z', '4135400204355290152');


--
-- Data for Name: room_heads; Type: TABLE DATA; Schema: message; Owner: -
--

INSERT INTO message.room_heads VALUES (24, '01a22d57-447f-7040-b045-6e40e797b0a6', 2, true);
INSERT INTO message.room_heads VALUES (25, '01a22d57-447a-7347-bada-631a30ff643b', 7, false);


--
-- Data for Name: outbox; Type: TABLE DATA; Schema: room; Owner: -
--



--
-- Data for Name: refinery_schema_history; Type: TABLE DATA; Schema: room; Owner: -
--

INSERT INTO room.refinery_schema_history VALUES (1, 'init', '2026-11-30T16:43:43.438337693Z', '11736623222137607463');
INSERT INTO room.refinery_schema_history VALUES (2, 'search', '2026-11-30T16:43:43.442867198Z', '9739662108731809506');


--
-- Data for Name: room_ids; Type: TABLE DATA; Schema: room; Owner: -
--

INSERT INTO room.room_ids VALUES ('01a22d57-447a-7347-bada-631a30ff643b');
INSERT INTO room.room_ids VALUES ('01a22d57-447d-748a-9cad-a52fc1e786c5');
INSERT INTO room.room_ids VALUES ('01a22d57-447f-7040-b045-6e40e797b0a6');


--
-- Data for Name: rooms; Type: TABLE DATA; Schema: room; Owner: -
--

INSERT INTO room.rooms VALUES ('01a22d57-447d-748a-9cad-a52fc1e786c5', 'Quiet', 'quiet', '', 'quiet', '01a22d57-4469-75d6-b6c5-10fa4376f23f', 'bob', 1796057023613, 0);
INSERT INTO room.rooms VALUES ('01a22d57-447a-7347-bada-631a30ff643b', 'Tea', 'tea', 'Green, black and white', 'teagreen, black and white', '01a22d57-444e-753f-89c2-7f4f2d27f014', 'ada', 1796057023610, 1);


--
-- Name: refinery_schema_history refinery_schema_history_pkey; Type: CONSTRAINT; Schema: auth; Owner: -
--

ALTER TABLE ONLY auth.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);


--
-- Name: revocation_head revocation_head_pkey; Type: CONSTRAINT; Schema: auth; Owner: -
--

ALTER TABLE ONLY auth.revocation_head
    ADD CONSTRAINT revocation_head_pkey PRIMARY KEY (single);


--
-- Name: revocations revocations_pkey; Type: CONSTRAINT; Schema: auth; Owner: -
--

ALTER TABLE ONLY auth.revocations
    ADD CONSTRAINT revocations_pkey PRIMARY KEY (number);


--
-- Name: revocations revocations_session_id_key; Type: CONSTRAINT; Schema: auth; Owner: -
--

ALTER TABLE ONLY auth.revocations
    ADD CONSTRAINT revocations_session_id_key UNIQUE (session_id);


--
-- Name: users users_pkey; Type: CONSTRAINT; Schema: auth; Owner: -
--

ALTER TABLE ONLY auth.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);


--
-- Name: users users_username_folded_key; Type: CONSTRAINT; Schema: auth; Owner: -
--

ALTER TABLE ONLY auth.users
    ADD CONSTRAINT users_username_folded_key UNIQUE (username_folded);


--
-- Name: files files_pkey; Type: CONSTRAINT; Schema: file; Owner: -
--

ALTER TABLE ONLY file.files
    ADD CONSTRAINT files_pkey PRIMARY KEY (id);


--
-- Name: files files_uploader_id_upload_room_client_message_id_key; Type: CONSTRAINT; Schema: file; Owner: -
--

ALTER TABLE ONLY file.files
    ADD CONSTRAINT files_uploader_id_upload_room_client_message_id_key UNIQUE (uploader_id, upload_room, client_message_id);


--
-- Name: forgets forgets_pkey; Type: CONSTRAINT; Schema: file; Owner: -
--

ALTER TABLE ONLY file.forgets
    ADD CONSTRAINT forgets_pkey PRIMARY KEY (file_id);


--
-- Name: installation installation_pkey; Type: CONSTRAINT; Schema: file; Owner: -
--

ALTER TABLE ONLY file.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (one);


--
-- Name: refinery_schema_history refinery_schema_history_pkey; Type: CONSTRAINT; Schema: file; Owner: -
--

ALTER TABLE ONLY file.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);


--
-- Name: unwanted_objects unwanted_objects_pkey; Type: CONSTRAINT; Schema: file; Owner: -
--

ALTER TABLE ONLY file.unwanted_objects
    ADD CONSTRAINT unwanted_objects_pkey PRIMARY KEY (id);


--
-- Name: deleted_files deleted_files_pkey; Type: CONSTRAINT; Schema: message; Owner: -
--

ALTER TABLE ONLY message.deleted_files
    ADD CONSTRAINT deleted_files_pkey PRIMARY KEY (partition, room_id, file_id);


--
-- Name: events events_identity; Type: CONSTRAINT; Schema: message; Owner: -
--

ALTER TABLE ONLY message.events
    ADD CONSTRAINT events_identity UNIQUE (partition, room_id, sender_id, client_id);


--
-- Name: events events_pkey; Type: CONSTRAINT; Schema: message; Owner: -
--

ALTER TABLE ONLY message.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (partition, "position");


--
-- Name: events events_seq; Type: CONSTRAINT; Schema: message; Owner: -
--

ALTER TABLE ONLY message.events
    ADD CONSTRAINT events_seq UNIQUE (partition, room_id, seq);


--
-- Name: log log_pkey; Type: CONSTRAINT; Schema: message; Owner: -
--

ALTER TABLE ONLY message.log
    ADD CONSTRAINT log_pkey PRIMARY KEY (one);


--
-- Name: partitions partitions_pkey; Type: CONSTRAINT; Schema: message; Owner: -
--

ALTER TABLE ONLY message.partitions
    ADD CONSTRAINT partitions_pkey PRIMARY KEY (partition);


--
-- Name: refinery_schema_history refinery_schema_history_pkey; Type: CONSTRAINT; Schema: message; Owner: -
--

ALTER TABLE ONLY message.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);


--
-- Name: room_heads room_heads_pkey; Type: CONSTRAINT; Schema: message; Owner: -
--

ALTER TABLE ONLY message.room_heads
    ADD CONSTRAINT room_heads_pkey PRIMARY KEY (partition, room_id);


--
-- Name: outbox outbox_id_key; Type: CONSTRAINT; Schema: room; Owner: -
--

ALTER TABLE ONLY room.outbox
    ADD CONSTRAINT outbox_id_key UNIQUE (id);


--
-- Name: outbox outbox_pkey; Type: CONSTRAINT; Schema: room; Owner: -
--

ALTER TABLE ONLY room.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (room_id, number);


--
-- Name: refinery_schema_history refinery_schema_history_pkey; Type: CONSTRAINT; Schema: room; Owner: -
--

ALTER TABLE ONLY room.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);


--
-- Name: room_ids room_ids_pkey; Type: CONSTRAINT; Schema: room; Owner: -
--

ALTER TABLE ONLY room.room_ids
    ADD CONSTRAINT room_ids_pkey PRIMARY KEY (id);


--
-- Name: rooms rooms_pkey; Type: CONSTRAINT; Schema: room; Owner: -
--

ALTER TABLE ONLY room.rooms
    ADD CONSTRAINT rooms_pkey PRIMARY KEY (id);


--
-- Name: revocations_by_expiry; Type: INDEX; Schema: auth; Owner: -
--

CREATE INDEX revocations_by_expiry ON auth.revocations USING btree (expires_at_ms);


--
-- Name: users_by_skeleton; Type: INDEX; Schema: auth; Owner: -
--

CREATE UNIQUE INDEX users_by_skeleton ON auth.users USING btree (username_skeleton);


--
-- Name: users_without_skeleton; Type: INDEX; Schema: auth; Owner: -
--

CREATE INDEX users_without_skeleton ON auth.users USING btree (id) WHERE (username_skeleton IS NULL);


--
-- Name: files_of_room; Type: INDEX; Schema: file; Owner: -
--

CREATE INDEX files_of_room ON file.files USING btree (room_id, created_at_ms, id);


--
-- Name: files_of_uploader; Type: INDEX; Schema: file; Owner: -
--

CREATE INDEX files_of_uploader ON file.files USING btree (uploader_id, created_at_ms, id);


--
-- Name: files_pending; Type: INDEX; Schema: file; Owner: -
--

CREATE INDEX files_pending ON file.files USING btree (id) WHERE (NOT ready);


--
-- Name: rooms_name; Type: INDEX; Schema: room; Owner: -
--

CREATE UNIQUE INDEX rooms_name ON room.rooms USING btree (folded_name);


--
-- Name: rooms_newest; Type: INDEX; Schema: room; Owner: -
--

CREATE INDEX rooms_newest ON room.rooms USING btree (created_at_ms, id);


--
-- Name: rooms_search; Type: INDEX; Schema: room; Owner: -
--

CREATE INDEX rooms_search ON room.rooms USING gin (room.search_pieces(search) COLLATE "C") WITH (fastupdate=off);


--
-- PostgreSQL database dump complete
--

\unrestrict Qt8ydcV14BqJg7bCjccB8JF8agQ4HuW8AY5AaHC9eKXBrCNdFY4czbWZqm049jC

