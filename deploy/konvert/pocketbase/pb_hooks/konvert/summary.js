// Summary of the caller's rooms: role, read mark, unread counts, last message, members, pins. PocketBase's own list
// request returns the rooms, under the rules; the summary contains only rooms with a membership of the caller, and
// the number of members of public rooms.

const { caller, answer, query } = require(`${__hooks}/konvert/call.js`);

/** Upper limit of counts, since a count reads an index entry per message. */
const MAX_COUNT = 999;
const MAX_MEMBERS = 500;

function summary(e) {
  return answer(e, () => {
    const me = caller(e).id;
    return {
      rooms: query(e.app, OWN, { me, room: e.requestInfo().query.room ?? "" }),
      counts: query(e.app, PUBLIC, {}),
    };
  });
}

const unread = (type) =>
  `(SELECT count(*) FROM notifications n WHERE n.user = {:me} AND n.room = m.room AND n.type = '${type}' AND n.read = FALSE)`;

const OWN = `
  SELECT json_group_array(json_object(
    'room', m.room, 'role', m.role, 'last_read', m.last_read, 'muted', iif(m.muted, json('true'), json('false')), 'hidden_at', m.hidden_at,
    'unread', (SELECT count(*) FROM (SELECT 1 FROM messages x
      WHERE x.room = m.room AND x.created > max(m.last_read, m.created) AND x.author != {:me} AND x.deleted = FALSE LIMIT ${MAX_COUNT})),
    'mentions', ${unread("mention")},
    'reactions', ${unread("reaction")},
    'last', (SELECT json_object('id', x.id, 'content', x.content, 'type', x.type, 'author', x.author, 'username', coalesce(u.username, ''), 'created', x.created,
        'files', iif(json_valid(x.files), json(x.files), NULL), 'file_notes', iif(json_valid(x.file_notes), json(x.file_notes), NULL))
      FROM messages x LEFT JOIN users u ON u.id = x.author
      WHERE x.room = m.room AND x.deleted = FALSE ORDER BY x.created DESC LIMIT 1),
    'members', (SELECT json_group_array(user) FROM (SELECT user FROM room_members WHERE room = m.room LIMIT ${MAX_MEMBERS})),
    'count', (SELECT count(*) FROM room_members WHERE room = m.room),
    'pins', (SELECT json_group_array(message) FROM (SELECT message FROM pins WHERE room = m.room ORDER BY created DESC))
  )) value
  FROM room_members m WHERE m.user = {:me} AND ({:room} = '' OR m.room = {:room})`;

const PUBLIC = `
  SELECT json_group_object(room, n) value
  FROM (SELECT m.room, count(*) n FROM rooms r JOIN room_members m ON m.room = r.id WHERE r.type = 'public' GROUP BY m.room)`;

module.exports = { summary };
