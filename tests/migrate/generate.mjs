// A generator of chats as Figma Make's server code leaves them in its key-value table, of any size, with every kind of
// oddity. The same seed makes the same chat.

/** A small pseudo-random generator (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return { next, below: (n) => Math.floor(next() * n), pick: (list) => list[Math.floor(next() * list.length)] };
}

/** A UUID of version 4 from a kind and a number, the same in every run. */
export function uuid(kind, number) {
  const r = random(kind * 7919 + number * 104729 + 1);
  const hex = Array.from({ length: 32 }, () => r.below(16).toString(16));
  hex[12] = "4";
  hex[16] = "89ab"[r.below(4)];
  const s = hex.join("");
  return `${s.slice(0, 8)}-${s.slice(8, 12)}-${s.slice(12, 16)}-${s.slice(16, 20)}-${s.slice(20)}`;
}

const [USER, ROOM, MESSAGE, POLL] = [1, 2, 3, 4];
const START = Date.UTC(2025, 0, 1);
const WORDS =
  "привет мир как дела сегодня вечером встреча код проект снова работает отлично the quick brown fox jumps".split(" ");
const EMOJI = ["👍", "❤️", "😂", "🔥", "👩‍👩‍👧‍👦", "🇷🇺"];
export const BUCKET = "make-b0f1e6d5-uploads";

export const userId = (n) => uuid(USER, n);
export const roomId = (n) => uuid(ROOM, n);
export const messageId = (n) => uuid(MESSAGE, n);
export const passwordOf = (n) => `password of ${n}`;
export const emailOf = (n) =>
  n % 101 === 7 ? "" : n % 101 === 9 ? `User${n - 1}@Example.com` : `user${n}@example.com`;
/** As GoTrue keeps addresses: in lower case, and unique. */
export const accountEmailOf = (n) => (n % 101 === 7 || n % 101 === 9 ? "" : `user${n}@example.com`);
export const fileOf = (n, users) =>
  `${userId(n % users)}/${START + n}-f${n.toString(36)}.${["png", "webm", "mp4"][n % 3]}`;
const pair = (a, b) => [userId(a), userId(b)].sort().join(":");

/** The dates' forms: ISO, PostgreSQL's, milliseconds. */
function date(ms, form) {
  const iso = new Date(ms).toISOString();
  return [iso, iso.replace("T", " ").replace("Z", "+00"), ms][form];
}

/** Yields [key, value] for every row of the table; a value is JSON text. */
export function* rows({ users, rooms, directs, messages, files = 0, origin = "https://old.supabase.co", seed = 1 }) {
  const r = random(seed);
  const row = (key, value) => [key, JSON.stringify(value)];
  for (let n = 0; n < users; n++) {
    yield row(`user:${userId(n)}`, user(n, { users, rooms, files, origin }));
    yield row(`username:user_${n}`, userId(n));
    if (n % 3 === 0) yield row(`achievements:${userId(n)}`, achievements(n));
    if (n % 10 === 0)
      yield row(`activity_streak:${userId(n)}`, { currentStreak: 3, longestStreak: 9, lastActivityDate: "2025-01-01" });
    if (n % 4 === 0)
      yield row(`notification:${START + n}:n${n.toString(36)}`, notification(n, { users, rooms, messages }));
    if (n % 6 === 1) {
      const [from, to] = [userId(n), n % 60 === 1 ? uuid(9, n) : userId((n + 3) % users)];
      yield row(`friend_request:${from}:${to}`, {
        fromUserId: from,
        toUserId: to,
        status: "pending",
        createdAt: date(START + n * 1000, n % 3),
      });
    }
  }
  for (let n = 0; n < rooms; n++) yield row(`room:${roomId(n)}`, room(n, { users, messages, rooms }));
  for (let n = 0; n < directs; n++) {
    const [a, b] = [n % users, (n * 7 + 1 + Math.floor(n / users)) % users];
    if (a === b) continue;
    const id = pair(a, b);
    yield row(`dm:${id}`, {
      id,
      participants: id.split(":"),
      created_at: date(START + n * 100, 0),
      unread_count: {},
      last_read: { [userId(a)]: date(START + n * 200, 0) },
    });
    if (n % 20 === 0) yield row(`dm_hidden:${id}:${userId(a)}`, { hidden_at: date(START + 9e9, 0) });
  }
  for (let n = 0; n < messages; n++) {
    const value = message(n, { users, rooms, directs, messages, files, origin, r });
    yield value;
    if (n % 400 === 30) yield poll(n, users);
  }
  for (let n = 0; n < rooms; n++) yield row(`room_messages:${roomId(n)}`, [messageId(n), messageId(n + rooms)]);
  yield row("theme:default", { dark: true });
  yield row("feature_flags", ["a", "b"]);
}

function user(n, { users, rooms, files, origin }) {
  const value = {
    id: userId(n),
    email: emailOf(n),
    username: n % 97 === 5 ? `User_${n - 1}` : `user_${n}`,
    display_name: `Участник ${n} 🙂`,
    role: n === 0 ? "admin" : ["user", "user", "vip", "moderator", "user"][n % 5],
    status: n % 2 ? "online" : "offline",
    created_at: date(START + n * 60_000, n % 3),
    last_activity: date(START + 1e9 + n, 0),
    friends: [
      userId((n + 1) % users),
      ...(n % 50 === 3 ? [uuid(9, n)] : []),
      ...(n % 2 ? [userId((n + users - 1) % users)] : []),
    ],
    blocked_users: n % 25 === 4 ? [userId((n + 2) % users)] : undefined,
    public_key: n % 4 === 0 ? Buffer.from(`public key of ${n} +/=`.repeat(10)).toString("base64") : undefined,
    room_keys:
      n % 8 === 0
        ? { [roomId(n % rooms)]: Buffer.from(`room key ${n}`).toString("base64"), ...(n % 80 === 0 && { gone: "x" }) }
        : undefined,
  };
  if (n % 31 === 3) delete value.username;
  if (n % 37 === 4) value.role = "superhero";
  if (n % 41 === 6) Object.assign(value, { banned: true });
  if (n % 43 === 7) Object.assign(value, { banned: true, ban_until: date(START + 4e11, 0) });
  if (n % 47 === 8) Object.assign(value, { muted: true, mute_until: date(START + 4e11, 0) });
  if (n % 53 === 9) Object.assign(value, { muted: true, muted_until: date(START + 4e11, 1) });
  if (n % 59 === 10) Object.assign(value, { deleted: true, deleted_at: date(START + 2e9, 0) });
  if (files > n && n % 3 === 0 && n % users === n) {
    value.avatar_path = fileOf(n, users);
    value.avatar = `${origin}/storage/v1/object/sign/${BUCKET}/${fileOf(n, users)}?token=abc`;
  }
  return value;
}

function achievements(n) {
  const achievements = {
    first_message: { achievementId: "first_message", progress: 1, isUnlocked: true, unlockedAt: date(START + n, 0) },
    talkative: { achievementId: "talkative", progress: n, isUnlocked: false },
  };
  if (n % 30 === 0) achievements.broken = "yes";
  return { userId: userId(n), achievements, lastUpdated: date(START, 0) };
}

function notification(n, { users, rooms, messages }) {
  const value = {
    userId: userId(n),
    type: ["mention", "reaction", "friend_request", "friend_accepted", "room_invite"][n % 5],
    fromUserId: userId((n + 1) % users),
    roomId: roomId(n % rooms),
    messageId: messageId(n % messages),
    content: `уведомление ${n}`,
    read: n % 8 === 0,
    createdAt: date(START + n * 1000, n % 3),
  };
  if (n % 36 === 0) value.type = "party";
  if (n % 44 === 0) value.deleted = true;
  if (n % 52 === 0) value.content = "я".repeat(600);
  return value;
}

function room(n, { users, messages, rooms }) {
  const members = Array.from({ length: 2 + (n % 12) }, (_, i) => userId((n * 5 + i) % users));
  const value = {
    id: roomId(n),
    name: n % 29 === 3 ? 42 : `Комната ${n}`,
    type: n % 4 === 0 ? "public" : "private",
    created_by: members[0],
    created_at: date(START + n * 1000, n % 3),
    members,
    unread_count: { [members[1]]: 4 },
    last_read: { [members[1]]: date(START + 1e9, 0) },
    pinned_message_ids: [messageId(n), messageId((n + rooms) % messages), "gone"].slice(0, 1 + (n % 3)),
    pinned_message_id: n % 5 === 0 ? messageId(n) : undefined,
  };
  if (n % 17 === 2) value.created_by = "system";
  if (n % 19 === 3) value.members = [...members, uuid(9, n), members[0]];
  if (n % 23 === 4) Object.assign(value, { deleted: true, deleted_at: date(START + 2e9, 0) });
  if (n % 27 === 5) delete value.type;
  if (n % 31 === 6) delete value.created_at;
  if (n % 33 === 7) Object.assign(value, { is_favorites: true, type: "private", members: [members[0]] });
  return value;
}

/** The oddities of messages, by number; all others are plain. */
const ODD = 200;
function message(n, { users, rooms, directs, messages, files, origin, r }) {
  const sender = r.below(users);
  const direct = directs > 0 && n % 5 === 4;
  const d = n % Math.max(directs, 1);
  const value = {
    id: messageId(n),
    room_id: direct ? pair(d % users, (d * 7 + 1 + Math.floor(d / users)) % users) : roomId(n % rooms),
    sender_id: userId(sender),
    sender_username: `user_${sender}`,
    content: Array.from({ length: 4 + r.below(24) }, () => r.pick(WORDS)).join(" "),
    type: "text",
    created_at: date(START + n * 1000, 0),
    reactions: {},
  };
  if (n % 10 === 3)
    value.reactions = { [r.pick(EMOJI)]: [userId(r.below(users))], "👍": [userId(n % users), userId(n % users)] };
  if (n % 12 === 5 && n > rooms) value.reply_to = messageId(n - rooms);
  if (n % 15 === 6) value.mentions = [userId(r.below(users))];
  if (n % 7 === 1)
    value.content = JSON.stringify({
      version: "v1",
      ciphertext: Buffer.from(value.content).toString("base64"),
      iv: "AAAAAAAAAAAAAAAA",
    });
  let key = `message:${value.id}`;
  switch (n % ODD) {
    case 0:
      delete value.content;
      break;
    case 2:
      value.content = 12345.5;
      break;
    case 4:
      value.content = { text: "an object" };
      break;
    case 8:
      value.room_id = uuid(8, n);
      break;
    case 10:
      value.reply_to = messageId((n + 1) % messages);
      break;
    case 12:
      value.reply_to = uuid(8, n);
      break;
    case 14:
      value.content = "ноль\u200bширины \u200d\ufeff 👩‍👩‍👧‍👦🏳️‍🌈 \u202eсправа";
      break;
    case 16:
      if (n % (ODD * 100) === 16) value.content = "Ж".repeat(65_536);
      break;
    case 18:
      if (n % (ODD * 100) === 18) value.content = "Ж".repeat(65_537);
      break;
    case 20:
      value.created_at = date(START + n * 1000, 2);
      break;
    case 22:
      value.created_at = date(START + n * 1000, 1);
      break;
    case 24:
      delete value.created_at;
      break;
    case 26:
      value.id = `a/b?c=${n}&d`;
      key = `message:${value.id}`;
      break;
    case 28:
      return [key, JSON.stringify(JSON.stringify(value).slice(0, 60))];
    case 30:
      Object.assign(value, { type: "poll", content: "📊 Вопрос\n\n1. да\n2. нет" });
      break;
    case 32:
      return [key, "null"];
    case 34:
      return [key, JSON.stringify(JSON.stringify(value))];
    case 36:
      value.sender_id = uuid(8, n);
      break;
    case 38:
      value.sender_id = "system";
      break;
    case 40:
      value.type = "hologram";
      break;
    case 42:
      value.reactions = [{ emoji: "👍", userId: userId(1) }, { emoji: "👍" }];
      break;
    case 44:
      value.reactions = { "👍": "not a list", "🔥": [uuid(8, n)] };
      break;
    case 46:
      if (files)
        Object.assign(value, {
          type: "image",
          content: `${origin}/storage/v1/object/sign/${BUCKET}/${fileOf(n % files, users)}?token=x.y.z`,
        });
      break;
    case 48:
      key = `message:copy-${n}`;
      value.id = messageId(n - 1);
      break;
    case 50:
      key = `message:${value.room_id.includes(":") ? roomId(0) : value.room_id}:${value.id}`;
      if (!value.room_id.includes(":")) delete value.room_id;
      break;
    case 52:
      value.forwarded = true;
      break;
    case 54:
      Object.assign(value, { deleted: true, deleted_at: date(START + 3e9, 0) });
      break;
    case 56:
      Object.assign(value, { edited: true, edited_at: date(START + 2e9 + n, n % 3) });
      break;
    case 58:
      value.mentions = [userId(1), uuid(8, n)];
      break;
    case 60:
      value.id = null;
      break;
    case 62:
      value.created_at = "вчера";
      break;
  }
  return [key, JSON.stringify(value)];
}

function poll(n, users) {
  const value = {
    id: uuid(POLL, n),
    message_id: messageId(n),
    question: "Вопрос",
    options: ["да", "нет"],
    votes: { 0: [userId(1), userId(2)], 1: [userId(2), uuid(9, n), userId(3 % users)], 7: [userId(4 % users)] },
    anonymous: n % 800 === 30,
    created_by: userId(0),
    created_at: date(START + n * 1000, 0),
  };
  if (n % 1200 === 30) delete value.question;
  return [`poll:${value.id}`, JSON.stringify(value)];
}

/** A line of PostgreSQL's COPY. */
export function copyLine(key, value) {
  const escaped = (text) =>
    text.replaceAll("\\", "\\\\").replaceAll("\t", "\\t").replaceAll("\n", "\\n").replaceAll("\r", "\\r");
  return `${escaped(key)}\t${escaped(value)}\n`;
}

/** The content of a file, from its number: of any size up to 60 KB, beginning as its type demands. */
export function contentOf(n) {
  const r = random(n + 77);
  const body = Buffer.alloc(200 + r.below(n % 50 === 0 ? 60_000 : 4_000), r.below(256));
  const heads = [
    Buffer.from("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489", "hex"),
    Buffer.from("1a45dfa39f4286810142f7810142f2810442f381084282847765626d", "hex"),
    Buffer.from("0000001866747970697336320000000069736f6d6d703432", "hex"),
  ];
  return Buffer.concat([heads[n % 3], body]);
}
export const mimeOf = (n) => ["image/png", "video/webm", "video/mp4"][n % 3];
