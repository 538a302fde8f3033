// Routes of the edge function for messages, reactions and polls.

import { createNotification } from "./edge-people.mjs";
import { newId, now, refuse } from "./edge.mjs";

export function messageRoutes(add, { database }) {
  const append = async (index, id) => database.set(index, [...((await database.get(index)) ?? []), id]);

  const messageOf = async (id) => {
    const message = (await database.get(`message:${id}`)) ?? refuse("Сообщение не найдено");
    return message.deleted ? refuse("Сообщение удалено") : message;
  };
  const save = async (message) => {
    await database.set(`message:${message.id}`, message);
    return message;
  };
  const create = async (index, me, roomId, content, type, more = {}) => {
    const sender = {
      sender_id: me.id,
      sender_username: me.username,
      sender_display_name: me.display_name,
      sender_avatar: me.avatar,
    };
    const message = await save({
      id: newId(),
      room_id: roomId,
      ...sender,
      content,
      type,
      created_at: now(),
      reactions: {},
      ...more,
    });
    await append(index, message.id);
    return message;
  };
  /** Reads muted_until, a field without a writer. */
  const checkMute = (me) => {
    if (me.muted && !(me.muted_until && Date.parse(me.muted_until) < Date.now())) refuse("Вы в муте");
  };
  const enter = async (me, roomId) => {
    const room = (await database.get(`room:${roomId}`)) ?? refuse("Комната не найдена");
    if (room.deleted) refuse("Комната удалена");
    if (me.banned) refuse("Вы заблокированы");
    checkMute(me);
    if (room.members.includes(me.id)) return room;
    if (room.type !== "public") refuse("Вы не являетесь участником комнаты");
    room.members.push(me.id);
    return room;
  };
  const read = async (index, limit) => {
    const ids = ((await database.get(index)) ?? []).slice(-limit);
    const found = await Promise.all(ids.map((id) => database.get(`message:${id}`)));
    // In a room, an id without a row makes the real function fail inside, and answer with an empty list.
    if (index.startsWith("room_messages:") && found.includes(null)) return [];
    const messages = found.filter((message) => message && !message.deleted);
    const senders = new Map();
    for (const { sender_id } of messages)
      if (!senders.has(sender_id)) senders.set(sender_id, await database.get(`user:${sender_id}`));
    return messages.map((message) => {
      const { username, display_name, avatar } = senders.get(message.sender_id) ?? {};
      return username
        ? { ...message, sender_username: username, sender_display_name: display_name, sender_avatar: avatar }
        : message;
    });
  };
  const mentionsIn = async (content) => {
    const names = [...content.matchAll(/@([\p{L}\p{N}_]+)/gu)].map(([, name]) => name.toLowerCase());
    if (names.length === 0) return [];
    return (await database.values("user:"))
      .filter((user) => names.includes(user.username.toLowerCase()))
      .map(({ id }) => id);
  };

  // ---- rooms

  add("POST", "/messages", async ({ me, body: { roomId, content, type = "text", replyTo } }) => {
    const room = await enter(me, roomId);
    const mentions = await mentionsIn(content);
    const more = { ...(replyTo ? { reply_to: replyTo } : {}), ...(mentions.length > 0 ? { mentions } : {}) };
    const message = await create(`room_messages:${roomId}`, me, roomId, content, type, more);
    const raised = (counts, ids) => {
      const all = { ...counts };
      for (const id of ids) all[id] = (all[id] ?? 0) + 1;
      return all;
    };
    const others = room.members.filter((id) => id !== me.id);
    for (const id of mentions)
      if (id !== me.id)
        await createNotification(database, id, "mention", me, {
          roomId,
          roomName: room.name,
          messageId: message.id,
          content,
        });
    await database.set(`room:${roomId}`, {
      ...room,
      unread_mentions: raised(
        room.unread_mentions,
        mentions.filter((id) => id !== me.id),
      ),
      unread_count: raised(room.unread_count, others),
      last_activity: message.created_at,
      last_message: {
        content: content.slice(0, 100),
        sender_username: me.display_name ?? me.username,
        created_at: message.created_at,
        type,
      },
    });
    return message;
  });
  add("GET", "/messages/:room", async ({ me, params, query }) => {
    const room = await database.get(`room:${params.room}`);
    if (!room || room.deleted) refuse("Комната не найдена", 404);
    if (me.banned) refuse("Забаненные пользователи могут находиться только в Азкабане", 403);
    if (!room.members.includes(me.id)) {
      if (room.type !== "public") refuse("Вы не являетесь участником комнаты", 403);
      await database.set(`room:${room.id}`, { ...room, members: [...room.members, me.id] });
    }
    return { messages: await read(`room_messages:${room.id}`, Number(query.get("limit") ?? 100)) };
  });

  // ---- single messages, without a check of membership

  add("PUT", "/messages/:id", async ({ me, params, body: { content } }) => {
    if (!content?.trim()) refuse("Контент сообщения не может быть пустым");
    const message = await messageOf(params.id);
    if (message.sender_id !== me.id) refuse("Только автор может редактировать сообщение");
    return save({ ...message, content, edited: true, edited_at: now() });
  });
  add("DELETE", "/messages/:id", async ({ me, params }) => {
    const message = await messageOf(params.id);
    if (message.sender_id !== me.id && me.role !== "admin" && me.role !== "moderator")
      refuse("Недостаточно прав для удаления");
    await save({ ...message, deleted: true, deleted_at: now(), deleted_by: me.id });
    return { success: true };
  });
  add("POST", "/messages/:id/react", async ({ me, params, body: { emoji } }) => {
    const message = await messageOf(params.id);
    const users = message.reactions?.[emoji] ?? [];
    const room = message.sender_id === me.id ? null : await database.get(`room:${message.room_id}`);
    if (room) {
      const count = (room.unread_reactions?.[message.sender_id] ?? 0) + 1;
      await database.set(`room:${room.id}`, {
        ...room,
        unread_reactions: { ...room.unread_reactions, [message.sender_id]: count },
      });
    }
    return save({
      ...message,
      reactions: { ...message.reactions, [emoji]: users.includes(me.id) ? users : [...users, me.id] },
    });
  });
  add("DELETE", "/messages/:id/react", async ({ me, params, query }) => {
    const emoji = query.get("emoji") ?? refuse("Эмодзи не указано");
    const message = await messageOf(params.id);
    const { [emoji]: users = [], ...others } = message.reactions ?? {};
    const left = users.filter((id) => id !== me.id);
    return save({ ...message, reactions: left.length > 0 ? { ...others, [emoji]: left } : others });
  });

  // ---- direct conversations

  add("POST", "/dm/:id/messages", async ({ me, params, body: { content, type = "text", replyTo } }) => {
    if (!content) refuse("Некорректные параметры");
    if (me.banned) refuse("Вы заблокированы и не можете отправлять сообщения");
    checkMute(me);
    const dm = (await database.get(`dm:${params.id}`)) ?? refuse("Чат не найден");
    if (!dm.participants.includes(me.id)) refuse("Вы не являетесь участником чата");
    const otherId = dm.participants.find((id) => id !== me.id);
    const other = (await database.get(`user:${otherId}`)) ?? refuse("Собеседник не найден");
    if (me.blocked_users?.includes(otherId) || other.blocked_users?.includes(me.id))
      refuse("Невозможно отправить сообщение этому пользователю");
    const message = await create(
      `dm_messages:${dm.id}`,
      me,
      dm.id,
      content,
      type,
      replyTo ? { reply_to: replyTo } : {},
    );
    const { created_at } = message;
    const last_message = {
      content: content.slice(0, 100),
      sender_id: me.id,
      sender_username: me.display_name ?? me.username,
      created_at,
      type,
    };
    const unread_count = { ...dm.unread_count, [otherId]: (dm.unread_count?.[otherId] ?? 0) + 1 };
    await database.set(`dm:${dm.id}`, { ...dm, last_activity: created_at, last_message, unread_count });
    return message;
  });
  add("GET", "/dm/:id/messages", async ({ me, params, query }) => {
    const dm = await database.get(`dm:${params.id}`);
    if (!dm?.participants.includes(me.id)) return { messages: [] };
    return { messages: await read(`dm_messages:${dm.id}`, Number(query.get("limit") ?? 100)) };
  });

  // ---- polls

  add("POST", "/polls", async ({ me, body: { roomId, question, options, anonymous } }) => {
    await enter(me, roomId);
    const lines = options.map((option, index) => `${index + 1}. ${option}`).join("\n");
    const content = `📊 ${question}${anonymous ? " 🔒 [Анонимный]" : ""}\n\n${lines}`;
    const message = await create(`room_messages:${roomId}`, me, roomId, content, "poll");
    const poll = {
      id: message.id,
      message_id: message.id,
      question,
      options,
      votes: {},
      anonymous,
      created_by: me.id,
      created_at: now(),
    };
    await database.set(`poll:${poll.id}`, poll);
    await database.set(`poll_message:${message.id}`, poll.id);
    return { message, poll };
  });
  add(
    "GET",
    "/polls/:id",
    async ({ params }) => {
      const poll = (await database.get(`poll:${params.id}`)) ?? refuse("Опрос не найден", 404);
      return poll.deleted ? refuse("Опрос удален", 404) : { poll };
    },
    { open: true },
  );
  add("POST", "/polls/:id/vote", async ({ me, params, body: { optionIndex } }) => {
    const poll = (await database.get(`poll:${params.id}`)) ?? refuse("Опрос не найден");
    if (!(optionIndex >= 0 && optionIndex < poll.options.length)) refuse("Недействительный вариант");
    if (Object.values(poll.votes).some((ids) => ids.includes(me.id))) refuse("Вы уже проголосовали");
    poll.votes[optionIndex] = [...(poll.votes[optionIndex] ?? []), me.id];
    await database.set(`poll:${poll.id}`, poll);
    return poll;
  });
}
