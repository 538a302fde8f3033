// Routes of the edge function for logins, users, friends, notifications, achievements, files.

import { now, refuse } from "./edge.mjs";
import { Reply } from "./gotrue.mjs";

export function peopleRoutes(add, { database, auth, files }) {
  const userOf = async (id, reason = "Пользователь не найден", status = 400) => {
    const user = await database.get(`user:${id}`);
    return user && !user.deleted ? user : refuse(reason, status);
  };
  const save = async (user) => {
    await database.set(`user:${user.id}`, user);
    return user;
  };
  const isStaff = ({ role }) => role === "admin" || role === "moderator";

  // ---- login

  add(
    "POST",
    "/auth/signup",
    async ({ body: { email, password, username } }) => {
      if (!email || !password || !username) refuse("Все поля обязательны");
      if (username.length < 3) refuse("Имя пользователя должно содержать минимум 3 символа");
      const others = await database.values("user:");
      const taken = others.some((user) => user.username.toLowerCase() === username.toLowerCase());
      if (taken || (await database.get(`username:${username.toLowerCase()}`)))
        refuse("Имя пользователя уже занято. Выберите другое имя.");
      if ((await auth.list()).some((user) => user.email === email))
        refuse("Пользователь с таким email уже существует. Попробуйте войти в систему.");
      const account = await auth
        .create(email, password, { username })
        .catch((error) => refuse(`Ошибка создания пользователя: ${error.message}`));
      const isFirst = others.length === 0;
      const user = await save({
        ...{ id: account.id, email, username: isFirst ? "iBro" : username },
        ...{ role: isFirst ? "admin" : "user", status: "online", created_at: now() },
      });
      await database.set(`username:${user.username.toLowerCase()}`, user.id);
      const { access_token } = await auth.password(email, password);
      return { user, access_token };
    },
    { open: true },
  );

  add(
    "POST",
    "/auth/signin",
    async ({ body: { email, password } }) => {
      if (!email || !password) refuse("Email и пароль обязательны");
      const session = await auth.password(email, password).catch((error) => {
        if (!(error instanceof Reply)) throw error;
        refuse("Неверный email или пароль. Если у вас еще нет аккаунта, зарегистрируйтесь.", 400, {
          code: "INVALID_CREDENTIALS",
        });
      });
      const user = await database.get(`user:${session.user.id}`);
      if (user.deleted) refuse("Ваш аккаунт был удален", 403);
      await save({ ...user, status: "online" });
      return { user, access_token: session.access_token, refresh_token: session.refresh_token };
    },
    { open: true },
  );

  add(
    "POST",
    "/auth/refresh",
    async ({ body: { refresh_token } }) => {
      if (!refresh_token) refuse("Refresh token не предоставлен", 401);
      const session = await auth.refresh(refresh_token).catch(() => refuse("Не удалось обновить сессию", 401));
      return { access_token: session.access_token, refresh_token: session.refresh_token };
    },
    { open: true },
  );

  add("GET", "/auth/me", async ({ me }) => ({ user: await save({ ...me, last_activity: now() }) }));
  add("POST", "/auth/signout", async ({ me }) => {
    await save({ ...me, status: "offline", last_activity: now() });
    return { success: true };
  });
  add("POST", "/auth/activity", async ({ me }) => {
    await save({ ...me, status: "online", last_activity: now() });
    return { success: true };
  });

  // ---- users

  add("GET", "/users/search", async ({ me, query }) => {
    const words = (query.get("q") ?? "").toLowerCase();
    const fits = (user) =>
      [user.username, user.email, user.display_name ?? ""].some((text) => text.toLowerCase().includes(words));
    const visible = (user) =>
      !user.deleted && !me.blocked_users?.includes(user.id) && !user.blocked_users?.includes(me.id);
    return { users: (await database.values("user:")).filter((user) => visible(user) && fits(user)) };
  });
  add("GET", "/users/friends/list", async ({ me }) => {
    const others = await database.values("user:");
    return {
      friends: others.filter(
        (user) => !user.deleted && (me.friends?.includes(user.id) || user.friends?.includes(me.id)),
      ),
    };
  });
  add("PUT", "/users/public-key", async ({ me, body: { publicKey } }) => {
    if (!publicKey) refuse("Публичный ключ обязателен");
    await save({ ...me, public_key: publicKey });
    return { success: true };
  });
  add("GET", "/users/:id", async ({ params }) => ({ user: await userOf(params.id, undefined, 404) }), { open: true });
  add("PUT", "/profile", async ({ me, body }) => {
    const { display_name, gender, age, interests, privacySettings } = body;
    return {
      user: await save({
        ...me,
        ...JSON.parse(JSON.stringify({ display_name, gender, age, interests, privacySettings })),
      }),
    };
  });
  add("PUT", "/users/:id/role", async ({ me, params, body: { role } }) => {
    if (me.role !== "admin") refuse("Только администратор может менять роли");
    return save({ ...(await userOf(params.id)), role });
  });
  add("POST", "/users/:id/ban", async ({ me, params, body: { hours } }) => {
    if (!isStaff(me)) refuse("Недостаточно прав");
    const user = await userOf(params.id);
    if (user.username === "iBro") refuse("Невозможно забанить первого пользователя");
    if (user.role === "vip") refuse("VIP пользователи защищены от банов");
    if (me.role === "moderator" && user.role === "admin") refuse("Модераторы не могут банить администраторов");
    const { ban_until: _, ...rest } = user;
    const until = hours ? { ban_until: new Date(Date.now() + hours * 3_600_000).toISOString() } : {};
    await save({ ...rest, banned: true, ...until });
    for (const room of await database.values("room:")) {
      if (room.members.includes(user.id))
        await database.set(`room:${room.id}`, { ...room, members: room.members.filter((id) => id !== user.id) });
    }
    return user;
  });
  add("POST", "/users/:id/unban", async ({ me, params }) => {
    if (!isStaff(me)) refuse("Недостаточно прав");
    const { ban_until: _, ...user } = await userOf(params.id);
    return save({ ...user, banned: false });
  });
  add("POST", "/users/:id/mute", async ({ me, params, body: { hours } }) => {
    if (!isStaff(me)) refuse("Недостаточно прав");
    const user = await userOf(params.id);
    if (me.role === "moderator" && user.role === "admin") refuse("Модераторы не могут мутить администраторов");
    const length = Math.min(Math.max(1, hours || 24), 24);
    return save({ ...user, muted: true, mute_until: new Date(Date.now() + length * 3_600_000).toISOString() });
  });
  add("POST", "/users/:id/unmute", async ({ me, params }) => {
    if (!isStaff(me)) refuse("Недостаточно прав");
    const { mute_until: _, ...user } = await userOf(params.id);
    return save({ ...user, muted: false });
  });
  add("POST", "/users/:id/block", async ({ me, params }) => {
    if (params.id === me.id) refuse("Нельзя заблокировать самого себя");
    const other = await userOf(params.id);
    if (me.blocked_users?.includes(other.id)) refuse("Пользователь уже заблокирован");
    if (other.friends?.includes(me.id)) await save({ ...other, friends: other.friends.filter((id) => id !== me.id) });
    const friends = me.friends ? { friends: me.friends.filter((id) => id !== other.id) } : {};
    await save({ ...me, ...friends, blocked_users: [...(me.blocked_users ?? []), other.id] });
    return { success: true };
  });
  add("POST", "/users/:id/unblock", async ({ me, params }) => {
    if (!me.blocked_users?.includes(params.id)) refuse("Пользователь не в списке заблокированных");
    await save({ ...me, blocked_users: me.blocked_users.filter((id) => id !== params.id) });
    return { success: true };
  });

  // ---- friends and notifications

  const befriend = async (one, two) => {
    const [a, b] = [await userOf(one), await userOf(two)];
    if (a.blocked_users?.includes(two) || b.blocked_users?.includes(one))
      refuse("Невозможно добавить этого пользователя в друзья");
    if (a.friends?.includes(two)) refuse("Пользователь уже в друзьях");
    await save({ ...a, friends: [...(a.friends ?? []), two] });
    await save({ ...b, friends: [...(b.friends ?? []), one] });
  };
  const notify = (userId, type, from, more) => createNotification(database, userId, type, from, more);

  add("GET", "/friend-requests/:id/check", async ({ me, params }) => {
    const key = `friend_request:${me.id}:${params.id}`;
    return (await database.get(key))?.status === "pending" ? { pending: true, requestKey: key } : { pending: false };
  });
  add("POST", "/friend-requests/:id", async ({ me, params: { id } }) => {
    if (id === me.id) refuse("Нельзя добавить самого себя в друзья");
    const other = await userOf(id);
    if (me.friends?.includes(id)) refuse("Пользователь уже в друзьях");
    const [key, reverse] = [`friend_request:${me.id}:${id}`, `friend_request:${id}:${me.id}`];
    if (await database.get(key)) refuse("Запрос уже отправлен");
    if (await database.get(reverse)) {
      await befriend(me.id, id);
      await database.delete(reverse);
      await notify(id, "friend_accepted", me, {});
      await notify(me.id, "friend_accepted", other, {});
      return { message: "Запрос автоматически принят (встречный запрос)" };
    }
    const names = { fromUsername: me.username, toUsername: other.username };
    await database.set(key, {
      id: key,
      fromUserId: me.id,
      toUserId: id,
      ...names,
      status: "pending",
      createdAt: now(),
    });
    const content = `${me.username} хочет добавить вас в друзья`;
    await notify(id, "friend_request", me, { content, actionData: { requestKey: key } });
    return { message: "Запрос в друзья отправлен" };
  });
  add("POST", "/friend-requests/:key/accept", async ({ me, params: { key } }) => {
    const request = (await database.get(key)) ?? refuse("Запрос не найден");
    if (request.toUserId !== me.id) refuse("Нет доступа к этому запросу");
    await befriend(request.fromUserId, request.toUserId);
    await database.delete(key);
    for (const note of await notificationsOf(database, me.id)) {
      if (note.type === "friend_request" && note.fromUserId === request.fromUserId)
        await dropNotification(database, me.id, note.id);
    }
    await notify(request.fromUserId, "friend_accepted", me, {});
    return { message: "Запрос принят" };
  });
  add("POST", "/friend-requests/:key/reject", async ({ me, params: { key } }) => {
    const request = await database.get(key);
    if (request && request.toUserId !== me.id) refuse("Нет доступа к этому запросу");
    await database.delete(key);
    return { message: "Запрос отклонен" };
  });
  add("DELETE", "/users/:id/friend", async ({ me, params: { id } }) => {
    if (!me.friends?.includes(id)) refuse("Пользователь не в друзьях");
    await save({ ...me, friends: me.friends.filter((friend) => friend !== id) });
    const other = await database.get(`user:${id}`);
    if (other?.friends) await save({ ...other, friends: other.friends.filter((friend) => friend !== me.id) });
    for (const key of [`friend_request:${me.id}:${id}`, `friend_request:${id}:${me.id}`]) await database.delete(key);
    return { success: true };
  });

  add("GET", "/notifications", async ({ me }) => ({ notifications: await notificationsOf(database, me.id) }));
  const ownNotification = async (id, me) => {
    const note = (await database.get(id)) ?? refuse("Уведомление не найдено");
    return note.userId === me.id ? note : refuse("Нет доступа к этому уведомлению");
  };
  add("POST", "/notifications/:id/read", async ({ me, params }) => {
    await database.set(params.id, { ...(await ownNotification(params.id, me)), read: true });
    return { message: "Уведомление отмечено как прочитанное" };
  });
  add("DELETE", "/notifications/:id", async ({ me, params }) => {
    if (!(await database.get(params.id))) return { message: "Уведомление уже удалено" };
    await ownNotification(params.id, me);
    await dropNotification(database, me.id, params.id);
    return { message: "Уведомление удалено" };
  });

  // ---- achievements, without any check of the caller

  const progressOf = async (userId) =>
    (await database.get(`achievements:${userId}`)) ?? { userId, achievements: {}, lastUpdated: now() };
  add("GET", "/achievements/:id", ({ params }) => progressOf(params.id), { open: true });
  add(
    "POST",
    "/achievements/:id/unlock",
    async ({ params, body: { achievementId } }) => {
      const data = await progressOf(params.id);
      const entry = (data.achievements[achievementId] ??= { achievementId, progress: 0, isUnlocked: false });
      const newUnlock = !entry.isUnlocked;
      if (newUnlock) Object.assign(entry, { isUnlocked: true, unlockedAt: now() });
      await database.set(`achievements:${params.id}`, data);
      return { success: true, newUnlock, achievement: entry };
    },
    { open: true },
  );

  // ---- files: `body` is the form

  const store = async (me, body, origin) => {
    const file = body instanceof FormData ? body.get("file") : null;
    if (!file) refuse("Файл не предоставлен");
    const path = `${me.id}/${Date.now()}-${Math.random().toString(36).slice(2, 8)}.${file.name.split(".").pop()}`;
    const bucketed = `make-b0f1e6d5-uploads/${path}`;
    try {
      files.store(bucketed, Buffer.from(await file.arrayBuffer()), file.type);
    } catch (error) {
      refuse(`Ошибка загрузки: ${error.body?.message ?? error.message}`);
    }
    return { url: `${origin()}/storage/v1${files.sign(bucketed)}`, path };
  };
  add("POST", "/storage/upload", ({ me, body }) => store(me, body, files.origin));
  add("POST", "/profile/avatar", async ({ me, body }) => {
    const file = body instanceof FormData ? body.get("file") : null;
    if (!file) refuse("Файл не предоставлен");
    if (!file.type.startsWith("image/")) refuse("Можно загружать только изображения");
    if (file.size > 5 * 1024 * 1024) refuse("Файл слишком большой. Максимальный размер: 5 МБ");
    const { url, path } = await store(me, body, files.origin);
    return { user: await save({ ...me, avatar: url, avatar_path: path }), avatarUrl: url };
  });
}

export async function createNotification(database, userId, type, from, more) {
  const id = `notification:${Date.now()}:${Math.random().toString(36).slice(2, 11)}`;
  await database.set(id, {
    id,
    userId,
    type,
    fromUserId: from.id,
    fromUsername: from.username,
    ...more,
    read: false,
    createdAt: now(),
  });
  const index = (await database.get(`user_notifications:${userId}`)) ?? [];
  await database.set(`user_notifications:${userId}`, [id, ...index].slice(0, 100));
}

async function notificationsOf(database, userId) {
  const index = (await database.get(`user_notifications:${userId}`)) ?? [];
  const notes = await Promise.all(index.map((id) => database.get(id)));
  return notes.filter((note) => note && !note.deleted);
}

async function dropNotification(database, userId, id) {
  await database.delete(id);
  const index = (await database.get(`user_notifications:${userId}`)) ?? [];
  await database.set(
    `user_notifications:${userId}`,
    index.filter((other) => other !== id),
  );
}
