// Catalogue of achievements. `progress` is an SQL expression that counts towards `max`, from the records of {:user};
// without it, the hooks count in the stored record. {:zone} is the user's time zone, as a modifier of SQLite's dates:
// "+180 minutes".
//
// `secret`: the chat shows name and condition only to users who have the achievement. `elsewhere`: the server cannot
// check the condition and grants nothing.

const own = "FROM messages WHERE author = {:user}";
const messages = (more = "") => `(SELECT count(*) ${own} ${more})`;
const exists = (rest) => `(SELECT EXISTS (SELECT 1 ${rest}))`;
/** The largest group of a query. */
const largest = (rest) => `(SELECT coalesce(max(n), 0) FROM (SELECT count(*) n ${rest}))`;
const local = "datetime(substr(created, 1, 19), {:zone})";
const friends =
  "(SELECT count(*) FROM friend_requests WHERE status = 'accepted' AND (`from` = {:user} OR `to` = {:user}))";

/** Days in a row with a message: days minus their rank is the same number within a row. */
const streak = `(SELECT coalesce(max(n), 0) FROM (SELECT count(*) n FROM (
    SELECT julianday(day) - row_number() OVER (ORDER BY day) start FROM (SELECT DISTINCT date(${local}) day ${own})
  ) GROUP BY start))`;

/** Ten messages within 15 seconds: the tenth is compared with the first. */
const burst = `(SELECT EXISTS (SELECT 1 FROM (
    SELECT julianday(created) - julianday(lag(created, 9) OVER (ORDER BY created)) took ${own}
  ) WHERE took <= 15.0 / 86400))`;

/** "Soon" in plain text, and no further message for three hours. */
const soon = ["Скоро буду", "скоро буду", "Скоро приду", "скоро приду", "be right back", "back soon"]
  .map((words) => `instr(m.content, '${words}') > 0`)
  .join(" OR ");
const late = `(SELECT EXISTS (SELECT 1 FROM messages m WHERE m.author = {:user} AND m.type = 'text' AND (${soon})
    AND julianday('now') - julianday(m.created) >= 0.125
    AND NOT EXISTS (SELECT 1 FROM messages x WHERE x.author = m.author AND x.created > m.created
      AND julianday(x.created) - julianday(m.created) < 0.125)))`;

const silent = `(SELECT count(*) FROM (SELECT 1 FROM room_members m
    JOIN rooms r ON r.id = m.room AND r.type != 'direct'
    JOIN messages x ON x.room = m.room AND x.created > m.created AND x.created <= m.last_read
    WHERE m.user = {:user} AND NOT EXISTS (SELECT 1 FROM messages y WHERE y.room = m.room AND y.author = {:user})
    LIMIT 1000))`;

/** A reply, a reaction or a forward of a message that was a year old. */
const old = (time) => `julianday(${time}) - julianday(o.created) >= 365`;
const nostalgia = `(SELECT EXISTS (SELECT 1 FROM messages m JOIN messages o ON o.id IN (m.reply_to, m.forwarded_from)
      WHERE m.author = {:user} AND ${old("m.created")})
    OR EXISTS (SELECT 1 FROM reactions r JOIN messages o ON o.id = r.message
      WHERE r.user = {:user} AND ${old("r.created")}))`;

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
    ...{ id: "chatterbox", rarity: "legendary", icon: "📣", max: 10000 },
    name: { en: "Chatterbox", ru: "Неумолкающий" },
    description: { en: "Send 10,000 messages.", ru: "Отправить 10 000 сообщений." },
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
    ...{ id: "photographer", rarity: "epic", icon: "📸", max: 500 },
    name: { en: "Photographer", ru: "Фотолюбитель" },
    description: { en: "Send 500 images.", ru: "Отправить 500 изображений." },
    progress: messages("AND type = 'image'"),
  },
  {
    ...{ id: "documentalist", rarity: "rare", icon: "📄", max: 200 },
    name: { en: "Archivist", ru: "Архивариус" },
    description: { en: "Send 200 files.", ru: "Отправить 200 файлов." },
    progress: messages("AND type = 'file'"),
  },
  {
    ...{ id: "self_director", rarity: "rare", icon: "🎬", max: 50 },
    name: { en: "Director", ru: "Режиссёр" },
    description: { en: "Send 50 videos to one room.", ru: "Отправить 50 видео в одну комнату." },
    progress: largest(`${own} AND type = 'video' GROUP BY room`),
  },
  {
    ...{ id: "attentive", rarity: "common", icon: "↩️", max: 20 },
    name: { en: "Attentive", ru: "Внимательный" },
    description: { en: "Reply to 20 messages.", ru: "Ответить на 20 сообщений." },
    progress: messages("AND reply_to != ''"),
  },
  {
    ...{ id: "quote_king", rarity: "epic", icon: "👑", max: 300 },
    name: { en: "In reply", ru: "По существу" },
    description: { en: "Reply to 300 different messages.", ru: "Ответить на 300 разных сообщений." },
    progress: `(SELECT count(DISTINCT reply_to) ${own} AND reply_to != '')`,
  },
  {
    ...{ id: "reaction_brain", rarity: "epic", icon: "🧠", max: 10 },
    name: { en: "All feelings", ru: "Все чувства" },
    description: { en: "React with ten different emoji.", ru: "Поставить десять разных реакций." },
    progress: "(SELECT count(DISTINCT emoji) FROM reactions WHERE user = {:user})",
  },
  {
    ...{ id: "reactor", rarity: "rare", icon: "💥", max: 500 },
    name: { en: "Chain reaction", ru: "Цепная реакция" },
    description: { en: "Leave 500 reactions in one room.", ru: "Поставить 500 реакций в одной комнате." },
    progress: largest("FROM reactions r JOIN messages m ON m.id = r.message WHERE r.user = {:user} GROUP BY m.room"),
  },
  {
    ...{ id: "popular_person", rarity: "epic", icon: "⭐", max: 20 },
    name: { en: "Applause", ru: "Аплодисменты" },
    description: { en: "Get 20 reactions to one of your messages.", ru: "Получить 20 реакций на одно своё сообщение." },
    progress: largest(
      "FROM reactions r JOIN messages m ON m.id = r.message WHERE m.author = {:user} AND r.user != {:user} GROUP BY m.id",
    ),
  },
  {
    ...{ id: "soul_of_party", rarity: "common", icon: "🎉", max: 1 },
    name: { en: "Host", ru: "Хозяин вечера" },
    description: { en: "Create a room.", ru: "Создать комнату." },
    progress:
      "(SELECT count(*) FROM room_members m JOIN rooms r ON r.id = m.room WHERE m.user = {:user} AND m.role = 'owner' AND r.type != 'direct' AND r.favorites = FALSE)",
  },
  {
    ...{ id: "initiator", rarity: "rare", icon: "🔥", max: 10 },
    name: { en: "Initiator", ru: "Инициатор" },
    description: { en: "Start ten chats in one day.", ru: "Начать десять чатов за день." },
    progress: largest(`FROM rooms WHERE owner = {:user} AND favorites = FALSE GROUP BY date(${local})`),
  },
  {
    ...{ id: "magnet", rarity: "rare", icon: "🧲", max: 10 },
    name: { en: "Magnet", ru: "Центр притяжения" },
    description: { en: "Invite ten people to rooms.", ru: "Пригласить в комнаты десять человек." },
    progress: "(SELECT count(*) FROM notifications WHERE `from` = {:user} AND type = 'room_invite')",
  },
  {
    ...{ id: "rescuer", rarity: "rare", icon: "🚑", max: 1 },
    name: { en: "Rescuer", ru: "Спасатель" },
    description: {
      en: "Invite somebody after a member has asked for it.",
      ru: "Пригласить человека, когда об этом попросили в комнате.",
    },
    secret: true,
  },
  {
    ...{ id: "good_company", rarity: "common", icon: "🤝", max: 5 },
    name: { en: "Good company", ru: "Хорошая компания" },
    description: { en: "Have five friends.", ru: "Завести пятерых друзей." },
    progress: friends,
  },
  {
    ...{ id: "chips_pretzel", rarity: "legendary", icon: "🥨", max: 50 },
    name: { en: "Friend of everybody", ru: "Всеобщий друг" },
    description: { en: "Have 50 friends.", ru: "Завести 50 друзей." },
    progress: friends,
  },
  {
    ...{ id: "silent_listener", rarity: "epic", icon: "👂", max: 1000 },
    name: { en: "Silent reader", ru: "Молчаливый читатель" },
    description: {
      en: "Read 1,000 messages in rooms without writing there.",
      ru: "Прочитать 1000 сообщений в комнатах, ничего там не написав.",
    },
    progress: silent,
  },
  {
    ...{ id: "beacon", rarity: "rare", icon: "🔦", max: 1 },
    name: { en: "Beacon", ru: "Маячок" },
    description: { en: "Mention five people in one message.", ru: "Упомянуть пятерых в одном сообщении." },
    progress: exists(`${own} AND json_array_length(iif(json_valid(mentions), mentions, '[]')) >= 5`),
    secret: true,
  },
  {
    ...{ id: "history_keeper", rarity: "rare", icon: "📌", max: 20 },
    name: { en: "Keeper", ru: "Хранитель" },
    description: { en: "Have 20 messages pinned.", ru: "Держать закреплёнными 20 сообщений." },
    progress: "(SELECT count(*) FROM pins WHERE user = {:user})",
  },
  {
    ...{ id: "collector", rarity: "epic", icon: "🗂️", max: 100 },
    name: { en: "Collector", ru: "Собиратель" },
    description: { en: "Keep 100 messages in Favourites.", ru: "Сохранить 100 сообщений в «Избранное»." },
    progress:
      "(SELECT count(*) FROM messages m JOIN rooms r ON r.id = m.room WHERE r.owner = {:user} AND r.favorites = TRUE)",
  },
  {
    ...{ id: "nostalgia", rarity: "rare", icon: "📜", max: 1 },
    name: { en: "Nostalgia", ru: "Ностальгия" },
    description: {
      en: "Reply to, react to or forward a message older than a year.",
      ru: "Ответить на сообщение старше года, переслать его или поставить реакцию.",
    },
    progress: nostalgia,
    secret: true,
  },
  {
    ...{ id: "night_owl", rarity: "rare", icon: "🦉", max: 1 },
    name: { en: "Night owl", ru: "Сова" },
    description: { en: "Write between 2 and 5 in the night.", ru: "Написать сообщение между 2 и 5 часами ночи." },
    progress: exists(`${own} AND strftime('%H', ${local}) IN ('02', '03', '04')`),
  },
  {
    ...{ id: "speed_shooter", rarity: "rare", icon: "⚡", max: 1 },
    name: { en: "Lightning", ru: "Молния" },
    description: { en: "Send ten messages within 15 seconds.", ru: "Отправить десять сообщений за 15 секунд." },
    progress: burst,
  },
  {
    ...{ id: "striker", rarity: "legendary", icon: "📅", max: 30 },
    name: { en: "Every day", ru: "Каждый день" },
    description: { en: "Write on 30 days in a row.", ru: "Писать 30 дней подряд." },
    progress: streak,
  },
  {
    ...{ id: "new_year_miracle", rarity: "legendary", icon: "🎄", max: 1 },
    name: { en: "First of January", ru: "С Новым годом" },
    description: {
      en: "Write in the first two minutes of a new year.",
      ru: "Написать сообщение в первые две минуты нового года.",
    },
    progress: exists(`${own} AND strftime('%m-%d %H:%M', ${local}) IN ('01-01 00:00', '01-01 00:01')`),
    secret: true,
  },
  {
    ...{ id: "paradox", rarity: "epic", icon: "⏰", max: 1 },
    name: { en: "Soon", ru: "Скоро" },
    description: {
      en: "Promise to be back soon, and return three hours later.",
      ru: "Пообещать скоро вернуться и прийти через три часа.",
    },
    progress: late,
    secret: true,
  },
  {
    ...{ id: "oops_all", rarity: "rare", icon: "🤦", max: 1 },
    name: { en: "Second thoughts", ru: "Передумал" },
    description: { en: "Delete a message within two seconds.", ru: "Удалить сообщение в течение двух секунд." },
    secret: true,
  },
  {
    ...{ id: "ninja", rarity: "epic", icon: "🥷", max: 1 },
    name: { en: "Invisible ink", ru: "Невидимые чернила" },
    description: {
      en: "Delete a message before anybody has read it.",
      ru: "Удалить сообщение раньше, чем его прочитали.",
    },
    secret: true,
  },
  {
    ...{ id: "perfect_taste", rarity: "rare", icon: "🎨", max: 1 },
    name: { en: "Own taste", ru: "Свой вкус" },
    description: { en: "Choose an appearance of the chat.", ru: "Выбрать оформление чата." },
    elsewhere: true,
  },
];

module.exports = { CATALOGUE };
