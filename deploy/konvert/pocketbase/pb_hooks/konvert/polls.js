// Polls: a message of the type "poll" with the poll's id, whose content is question and options as text, and one vote
// per user. Imported polls have an id of their own: callers may name the message.

const { refuse, writer, caller, answer, transaction, visible, find, create, query, body } = require(
  `${__hooks}/konvert/call.js`,
);
const { membership } = require(`${__hooks}/konvert/rooms.js`);

const MAX_OPTIONS = 20;
const MAX_OPTION_LENGTH = 200;
/** Maximum number of listed voters per option. */
const MAX_VOTERS = 500;

function createPoll(e) {
  return answer(e, () => {
    const me = writer(e);
    const { room, question, options, anonymous = false, id } = body(e);
    if (typeof question !== "string" || !question.trim()) refuse.invalid("A poll needs a question.");
    if (!Array.isArray(options) || options.length < 2 || options.length > MAX_OPTIONS || !options.every(isOption)) {
      refuse.invalid(`A poll needs 2 to ${MAX_OPTIONS} options of up to ${MAX_OPTION_LENGTH} characters.`);
    }
    return transaction(e.app, (tx) => {
      if (!membership(tx, String(room), me.id)) refuse.forbidden("Only members of the room may create a poll.");
      const existing = id && find(tx, "polls", "id = {:id}", { id });
      if (existing)
        return existing.getString("author") === me.id
          ? state(tx, existing, me.id)
          : refuse.conflict("This id is taken.");
      const poll = create(tx, "polls", {
        ...(id && { id }),
        room,
        author: me.id,
        question: question.trim(),
        options: options.map((option) => option.trim()),
        counts: options.map(() => 0),
        anonymous: Boolean(anonymous),
      });
      const message = create(tx, "messages", { id: poll.id, room, author: me.id, type: "poll", content: asText(poll) });
      poll.set("message", message.id);
      tx.save(poll);
      return state(tx, poll, me.id);
    });
  });
}

/** The poll as plain text, for previews, search and clients without polls. */
function asText(poll) {
  const options = JSON.parse(poll.getString("options")).map((option, index) => `${index + 1}. ${option}`);
  return `📊 ${poll.getString("question")}${poll.getBool("anonymous") ? " 🔒" : ""}\n\n${options.join("\n")}`;
}

/** The poll of the path, by its id or its message's id. */
function named(app, e) {
  const id = e.request.pathValue("id");
  const found = find(app, "polls", "id = {:id}", { id }) ?? find(app, "polls", "message = {:id}", { id });
  return visible(app, e, "polls", found ? found.id : id);
}

function isOption(option) {
  return typeof option === "string" && option.trim() !== "" && option.length <= MAX_OPTION_LENGTH;
}

function get(e) {
  return answer(e, () => state(e.app, named(e.app, e), caller(e).id));
}

/** Sets, changes or withdraws (`option: null`) the caller's vote, and counts again. */
function vote(e) {
  return answer(e, () => {
    const me = writer(e);
    const { option } = body(e);
    return transaction(e.app, (tx) => {
      const poll = named(tx, e);
      if (!membership(tx, poll.getString("room"), me.id)) refuse.forbidden("Only members of the room may vote.");
      const size = JSON.parse(poll.getString("options")).length;
      if (option !== null && !(Number.isInteger(option) && option >= 0 && option < size)) {
        refuse.invalid(`option must be an index from 0 to ${size - 1}, or null.`);
      }
      const existing = find(tx, "poll_votes", "poll = {:poll} && user = {:user}", { poll: poll.id, user: me.id });
      if (option === null) {
        if (existing) tx.delete(existing);
      } else if (existing) {
        existing.set("option", option);
        tx.save(existing);
      } else {
        create(tx, "poll_votes", { poll: poll.id, user: me.id, option });
      }
      poll.set("counts", counted(tx, poll.id, size));
      tx.save(poll);
      return state(tx, poll, me.id);
    });
  });
}

function counted(app, poll, size) {
  const sql =
    "SELECT json_group_array(json_array(option, n)) value FROM (SELECT option, count(*) n FROM poll_votes WHERE poll = {:poll} GROUP BY option)";
  const counts = Array(size).fill(0);
  for (const [option, n] of query(app, sql, { poll })) if (option < size) counts[option] = n;
  return counts;
}

/** State of a poll for a user; without voters if the poll is anonymous. */
function state(app, poll, user) {
  const texts = JSON.parse(poll.getString("options"));
  const counts = JSON.parse(poll.getString("counts") || "[]");
  const mine = find(app, "poll_votes", "poll = {:poll} && user = {:user}", { poll: poll.id, user });
  const voters = (option) => {
    if (poll.getBool("anonymous")) return mine && mine.getInt("option") === option ? [user] : [];
    const sql =
      "SELECT json_group_array(user) value FROM (SELECT user FROM poll_votes WHERE poll = {:poll} AND option = {:option} ORDER BY created LIMIT {:most})";
    return query(app, sql, { poll: poll.id, option, most: MAX_VOTERS });
  };
  return {
    id: poll.id,
    room: poll.getString("room"),
    message: poll.getString("message"),
    author: poll.getString("author"),
    question: poll.getString("question"),
    anonymous: poll.getBool("anonymous"),
    created: poll.getString("created"),
    options: texts.map((text, option) => ({ text, count: counts[option] ?? 0, votes: voters(option) })),
    mine: mine ? mine.getInt("option") : null,
  };
}

module.exports = { createPoll, get, vote };
