-- Entries of a deleted group whose id has a colon in it ran together with those of others: group `a`
-- with grant `b:c`, and group `a:b` with grant `c`. They get the ids that such entries have now, so
-- that a fact which is applied again replaces its rows. All other entries have kept their ids.

INSERT INTO ledger_rows
SELECT * REPLACE (
    concat('group-closed:', toString(lengthUTF8(pool_id)), ':', pool_id, ':', grant_id) AS entry_id
)
FROM ledger_rows
WHERE kind = 'group_deleted' AND grant_id != '' AND position(pool_id, ':') > 0
    AND startsWith(entry_id, 'group-deleted:');

ALTER TABLE ledger_rows
DELETE WHERE kind = 'group_deleted' AND grant_id != '' AND position(pool_id, ':') > 0
    AND startsWith(entry_id, 'group-deleted:')
SETTINGS mutations_sync = 2;
