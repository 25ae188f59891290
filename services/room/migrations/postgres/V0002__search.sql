-- Searches find rooms by the pieces of `search`: all runs of one, two and three characters. The database keeps the index of them
-- itself, so that it also has what a program of the release before writes. What has been made by hand before is left as it is.
CREATE OR REPLACE FUNCTION search_pieces(search text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(first) || array_agg(first || second) || array_agg(first || second || third)
    FROM (
        SELECT first, lead(first, 1, '') OVER text AS second, lead(first, 2, '') OVER text AS third
        FROM unnest(string_to_array(search, NULL)) WITH ORDINALITY AS characters (first, place) WINDOW text AS (ORDER BY place)
    ) AS pieces
$$;
CREATE INDEX IF NOT EXISTS rooms_search ON rooms USING gin (search_pieces(search) COLLATE "C") WITH (fastupdate = off);
