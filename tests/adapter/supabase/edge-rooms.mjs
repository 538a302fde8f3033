// Routes of the edge function for rooms, direct conversations and keys.

import { newId, now, refuse } from "./edge.mjs";

const PINNERS = ["admin", "moderator", "vip"];

export function roomRoutes(add, { database }) {
  const roomOf = async (id) => {
    const room = (await database.get(`room:${id}`)) ?? refuse("Комната не найдена");
    return room.deleted ? refuse("Комната удалена") : room;
  };
  const save = async (room) => {
    await database.set(`room:${room.id}`, room);
    return room;
  };
  const create = (fields) => save({ id: newId(), created_at: now(), ...fields });

  add("POST", "/rooms", async ({ me, body: { name, type } }) => {
    if (!name || !type) refuse("Название и тип комнаты обязательны");
    if (type === "public" && me.role !== "admin") refuse("Только администратор может создавать публичные комнаты");
    const counts = { unread_mentions: {}, unread_reactions: {}, unread_count: {} };
    return create({ name, type, created_by: me.id, members: [me.id], ...counts });
  });
  add("GET", "/rooms", async ({ me }) => {
    const rooms = (await database.values("room:")).filter(({ deleted }) => !deleted);
    if (me.banned) return { rooms: [] };
    return { rooms: rooms.filter((room) => room.type === "public" || room.members.includes(me.id)) };
  });
  add("POST", "/rooms/favorites", async ({ me }) => {
    const own = (await database.values("room:")).find(
      (room) => !room.deleted && room.is_favorites && room.created_by === me.id,
    );
    return (
      own ?? create({ name: "⭐ Избранное", type: "private", created_by: me.id, members: [me.id], is_favorites: true })
    );
  });
  add("POST", "/rooms/:id/join", async ({ me, params }) => {
    const room = await roomOf(params.id);
    if (me.banned) refuse("Забаненные пользователи могут находиться только в Азкабане");
    return room.members.includes(me.id) ? room : save({ ...room, members: [...room.members, me.id] });
  });
  add("POST", "/rooms/:id/leave", async ({ me, params }) => {
    const room = (await database.get(`room:${params.id}`)) ?? refuse("Комната не найдена");
    return save({ ...room, members: room.members.filter((id) => id !== me.id) });
  });
  add("POST", "/rooms/:id/invite", async ({ me, params, body: { userId } }) => {
    const room = await roomOf(params.id);
    if (room.is_favorites) refuse('Нельзя добавить пользователей в комнату "Избранное"');
    if (!room.members.includes(me.id)) refuse("Вы не являетесь участником этой комнаты");
    const user = await database.get(`user:${userId}`);
    if (!user || user.deleted) refuse("Пользователь не найден");
    return room.members.includes(userId) ? room : save({ ...room, members: [...room.members, userId] });
  });
  add("DELETE", "/rooms/:id", async ({ me, params }) => {
    const room = await roomOf(params.id);
    if (room.created_by !== me.id && me.role !== "admin" && me.role !== "moderator")
      refuse("Недостаточно прав для удаления комнаты");
    await save({ ...room, deleted: true, deleted_at: now(), deleted_by: me.id }); // its messages stay
    return { success: true, deletedMessages: 0, deletedNotifications: 0 };
  });

  add("POST", "/rooms/:id/pin", async ({ me, params, body: { messageId } }) => {
    if (!PINNERS.includes(me.role)) refuse("Недостаточно прав для закрепления");
    const room = await roomOf(params.id);
    const message = await database.get(`message:${messageId}`);
    if (!message || message.deleted) refuse("Сообщение не найдено или удалено"); // of any room
    const ids = room.pinned_message_ids ?? [];
    return save({
      ...room,
      pinned_message_id: messageId,
      pinned_message_ids: ids.includes(messageId) ? ids : [...ids, messageId],
    });
  });
  const unpin = async ({ me, params }) => {
    if (!PINNERS.includes(me.role)) refuse("Недостаточно прав для открепления");
    const { pinned_message_id: current, ...room } = await roomOf(params.id);
    const ids = (room.pinned_message_ids ?? []).filter((id) => id !== params.message);
    if (current !== params.message)
      return save({ ...room, ...(current ? { pinned_message_id: current } : {}), pinned_message_ids: ids });
    const next = ids.at(-1); // taken out of the list
    return save({ ...room, ...(next ? { pinned_message_id: next } : {}), pinned_message_ids: ids.slice(0, -1) });
  };
  add("DELETE", "/rooms/:id/pin", unpin);
  add("DELETE", "/rooms/:id/pin/:message", unpin);

  add("POST", "/rooms/:id/mark-read", async ({ me, params, body: { clearMentions, clearReactions } }) => {
    const room = await database.get(`room:${params.id}`);
    if (room && !room.members.includes(me.id)) return { success: true }; // an administrator who looks in
    if (!room) refuse("Комната не найдена");
    const zero = (counts) => ({ ...counts, [me.id]: 0 });
    await save({
      ...room,
      ...(clearMentions ? { unread_mentions: zero(room.unread_mentions) } : {}),
      ...(clearReactions ? { unread_reactions: zero(room.unread_reactions) } : {}),
      unread_count: zero(room.unread_count),
      last_read: { ...room.last_read, [me.id]: now() },
    });
    return { success: true };
  });

  add("GET", "/rooms/:id/key", ({ me, params }) => ({ encryptedKey: me.room_keys?.[params.id] ?? null }));
  add("POST", "/rooms/:id/keys", async ({ me, params, body: { encryptedKeys } }) => {
    if (!encryptedKeys || typeof encryptedKeys !== "object") refuse("Зашифрованные ключи обязательны");
    const room = (await database.get(`room:${params.id}`)) ?? refuse("Комната не найдена");
    if (room.created_by !== me.id && me.role !== "admin" && me.role !== "moderator")
      refuse("Недостаточно прав для управления ключами комнаты");
    for (const [id, key] of Object.entries(encryptedKeys)) {
      const user = await database.get(`user:${id}`);
      if (user) await database.set(`user:${id}`, { ...user, room_keys: { ...user.room_keys, [params.id]: key } });
    }
    return { success: true };
  });

  // ---- direct conversations

  add("POST", "/dm/create", async ({ me, body: { userId } }) => {
    if (!userId) refuse("Некорректные параметры");
    if (userId === me.id) refuse("Нельзя создать чат с самим собой");
    const other = await database.get(`user:${userId}`);
    if (!other || other.deleted) refuse("Собеседник не найден");
    if (me.blocked_users?.includes(userId) || other.blocked_users?.includes(me.id))
      refuse("Невозможно создать чат с этим пользователем");
    const participants = [me.id, userId].sort();
    const id = participants.join(":");
    const existing = await database.get(`dm:${id}`);
    if (existing) return existing;
    const dm = { id, participants, created_at: now(), unread_count: {}, last_read: {} };
    await database.set(`dm:${id}`, dm);
    return dm;
  });
  add("GET", "/dm/list", async ({ me }) => {
    const other = (dm) => dm.participants.find((id) => id !== me.id);
    const own = (await database.values("dm:")).filter(
      (dm) => dm.participants?.includes(me.id) && !me.blocked_users?.includes(other(dm)),
    );
    const time = (dm) => dm.last_activity ?? dm.created_at;
    return { dms: own.sort((a, b) => time(b).localeCompare(time(a))) };
  });
  add("POST", "/dm/:id/read", async ({ me, params }) => {
    const dm = (await database.get(`dm:${params.id}`)) ?? refuse("Чат не найден");
    if (!dm.participants.includes(me.id)) refuse("Вы не являетесь участником чата");
    const [unread_count, last_read] = [
      { ...dm.unread_count, [me.id]: 0 },
      { ...dm.last_read, [me.id]: now() },
    ];
    await database.set(`dm:${params.id}`, { ...dm, unread_count, last_read });
    return { success: true };
  });
}
