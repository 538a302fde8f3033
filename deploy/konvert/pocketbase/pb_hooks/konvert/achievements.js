// Achievements: a catalogue with conditions that the server can check. Nobody unlocks an achievement by claiming it.

const { refuse, caller, answer, transaction, find, create, query, now } = require(`${__hooks}/konvert/call.js`);

const count = (sql) => (app, user) => query(app, `SELECT json_array(${sql}) value`, { user })[0];
const messages = (more = "") => count(`(SELECT count(*) FROM messages WHERE author = {:user} ${more})`);

/** `progress` counts towards `max`, from the records of one user. */
const CATALOGUE = [
  {
    ...{ id: "first_message", rarity: "common", icon: "✍️", max: 1 },
    name: { en: "First words", ru: "Первые слова" },
    description: { en: "Send a message.", ru: "Отправить сообщение." },
    progress: messages(),
  },
  {
    ...{ id: "talkative", rarity: "rare", icon: "💬", max: 1000 },
    name: { en: "Talkative", ru: "Собеседник" },
    description: { en: "Send 1,000 messages.", ru: "Отправить 1000 сообщений." },
    progress: messages(),
  },
  {
    ...{ id: "voice_master", rarity: "rare", icon: "🎤", max: 250 },
    name: { en: "Own voice", ru: "Свой голос" },
    description: { en: "Send 250 voice messages.", ru: "Записать 250 голосовых сообщений." },
    progress: messages("AND type IN ('voice', 'audio')"),
  },
  {
    ...{ id: "illustrator", rarity: "rare", icon: "🖼️", max: 50 },
    name: { en: "Illustrator", ru: "Иллюстратор" },
    description: { en: "Send 50 images.", ru: "Отправить 50 изображений." },
    progress: messages("AND type = 'image'"),
  },
  {
    ...{ id: "attentive", rarity: "common", icon: "↩️", max: 20 },
    name: { en: "Attentive", ru: "Внимательный" },
    description: { en: "Reply to 20 messages.", ru: "Ответить на 20 сообщений." },
    progress: messages("AND reply_to != ''"),
  },
  {
    ...{ id: "reaction_brain", rarity: "epic", icon: "🧠", max: 10 },
    name: { en: "All feelings", ru: "Все чувства" },
    description: { en: "React with ten different emoji.", ru: "Поставить десять разных реакций." },
    progress: count("(SELECT count(DISTINCT emoji) FROM reactions WHERE user = {:user})"),
  },
  {
    ...{ id: "soul_of_party", rarity: "common", icon: "🎉", max: 1 },
    name: { en: "Host", ru: "Хозяин вечера" },
    description: { en: "Create a room.", ru: "Создать комнату." },
    progress: count(
      "(SELECT count(*) FROM room_members m JOIN rooms r ON r.id = m.room WHERE m.user = {:user} AND m.role = 'owner' AND r.type != 'direct' AND r.favorites = FALSE)",
    ),
  },
  {
    ...{ id: "magnet", rarity: "rare", icon: "🧲", max: 10 },
    name: { en: "Magnet", ru: "Центр притяжения" },
    description: { en: "Invite ten people to rooms.", ru: "Пригласить в комнаты десять человек." },
    progress: count("(SELECT count(*) FROM notifications WHERE `from` = {:user} AND type = 'room_invite')"),
  },
  {
    ...{ id: "good_company", rarity: "common", icon: "🤝", max: 5 },
    name: { en: "Good company", ru: "Хорошая компания" },
    description: { en: "Have five friends.", ru: "Завести пятерых друзей." },
    progress: count(
      "(SELECT count(*) FROM friend_requests WHERE status = 'accepted' AND (`from` = {:user} OR `to` = {:user}))",
    ),
  },
];

/** The catalogue with one user's progress, and stored achievements that the catalogue does not have (imported). */
function list(e) {
  return answer(e, () => {
    caller(e);
    const user = e.request.pathValue("id");
    if (!find(e.app, "users", "id = {:user}", { user })) refuse.missing("No such user.");
    const stored = new Map();
    for (const record of e.app.findRecordsByFilter("achievements", "user = {:user}", "", 0, 0, { user })) {
      stored.set(record.getString("achievement"), record);
    }
    const known = CATALOGUE.map(({ progress, ...entry }) => {
      const record = stored.get(entry.id);
      stored.delete(entry.id);
      const unlocked = record ? record.getString("unlocked_at") : "";
      return {
        ...entry,
        progress: unlocked ? entry.max : Math.min(progress(e.app, user), entry.max),
        unlocked_at: unlocked,
      };
    });
    const others = [...stored.values()].map((record) => {
      const id = record.getString("achievement");
      const text = { en: id, ru: id };
      const progress = record.getFloat("progress");
      const unlocked_at = record.getString("unlocked_at");
      return {
        id,
        name: text,
        description: text,
        rarity: "common",
        icon: "🏅",
        max: Math.max(progress, 1),
        progress,
        unlocked_at,
      };
    });
    return { achievements: [...known, ...others] };
  });
}

function unlock(e) {
  return answer(e, () => {
    const me = caller(e);
    const entry = CATALOGUE.find(({ id }) => id === e.request.pathValue("id"));
    if (!entry) refuse.missing("No such achievement.");
    return transaction(e.app, (tx) => {
      const values = { user: me.id, achievement: entry.id };
      const existing = find(tx, "achievements", "user = {:user} && achievement = {:achievement}", values);
      if (existing && existing.getString("unlocked_at")) return { id: entry.id, unlocked: false };
      const progress = entry.progress(tx, me.id);
      if (progress < entry.max)
        refuse.forbidden(`The condition is not met: ${progress} of ${entry.max}.`, { progress });
      const unlocked = { ...values, progress: entry.max, unlocked_at: now() };
      if (existing) {
        existing.load(unlocked);
        tx.save(existing);
      } else {
        create(tx, "achievements", unlocked);
      }
      return { id: entry.id, unlocked: true };
    });
  });
}

module.exports = { list, unlock };
