// Friends, notifications, achievements, polls.

import type { RecordModel } from "pocketbase";
import type {
  Achievement,
  AchievementsModule,
  FriendRequest,
  FriendsModule,
  Notification,
  NotificationsModule,
  NotificationType,
  Poll,
  PollOption,
  PollsModule,
} from "../interface.js";
import { BackendError, InvalidError, UnsupportedError } from "../errors.js";
import { date, present, quoted, type Context } from "./context.js";
import { text, type People } from "./people.js";

export function friendsModule(context: Context, people: People): FriendsModule {
  const requests = (status: string, signal?: AbortSignal) =>
    context.call(signal ? { signal } : {}, (request) =>
      context
        .collection("friend_requests")
        .getFullList({ ...request, filter: `status=${quoted(status)}`, sort: "-created" }),
    );

  return {
    async getFriends(options) {
      const me = context.me();
      const ids = (await requests("accepted", options?.signal)).map(({ from, to }) =>
        from === me ? text(to) : text(from),
      );
      const users = await people.many(ids);
      return { users: await people.withStatus([...users.values()], options) };
    },
    async sendFriendRequest(userId, options) {
      await context.route("POST", `friends/${userId}`, {}, options);
    },
    async acceptFriendRequest(requestId, options) {
      await context.route("POST", `friend-requests/${requestId}/accept`, {}, options);
    },
    async rejectFriendRequest(requestId, options) {
      await context.route("POST", `friend-requests/${requestId}/reject`, {}, options);
    },
    async removeFriend(userId, options) {
      await context.route("DELETE", `friends/${userId}`, undefined, options);
    },
    async getFriendRequests(options) {
      const records = await requests("pending", options?.signal);
      const users = await people.many(records.flatMap(({ from, to }) => [text(from), text(to)]));
      return {
        requests: records.flatMap((record): FriendRequest[] => {
          const [from, to] = [users.get(text(record.from)), users.get(text(record.to))];
          return from && to
            ? [{ id: record.id, from, to, status: "pending", created_at: date(record.created) ?? "" }]
            : [];
        }),
      };
    },
  };
}

export const NOTIFICATION_PARTS = "from,room,message";
/** Longest text of a message in a notification. */
const EXCERPT = 100;

/** Notification from a record with expanded relations. */
export function toNotification(record: RecordModel, language: Language): Notification {
  const { from, room, message } = (record.expand ?? {}) as Record<string, RecordModel | undefined>;
  const name = from ? text(from.name) || text(from.username) : undefined;
  const said = message?.type === "text" && !isCiphertext(text(message.content)) ? text(message.content) : "";
  return present({
    id: record.id,
    userId: text(record.user),
    type: text(record.type) as NotificationType,
    fromUserId: text(record.from) || undefined,
    fromUsername: name,
    roomId: text(record.room) || undefined,
    roomName: (room && text(room.name)) || undefined,
    messageId: text(record.message) || undefined,
    requestId: text(record.request) || undefined,
    content:
      text(record.content) ||
      SENTENCES[language][text(record.type)]?.(name ?? "?", text(room?.name)) ||
      said.slice(0, EXCERPT) ||
      undefined,
    read: record.read === true,
    createdAt: date(record.created) ?? "",
  });
}

type Language = Context["language"];

const SENTENCES: Record<Language, Record<string, (name: string, room: string) => string>> = {
  en: {
    friend_request: (name) => `${name} wants to be your friend`,
    friend_accepted: (name) => `${name} is your friend now`,
    room_invite: (name, room) => `${name} added you to “${room}”`,
  },
  ru: {
    friend_request: (name) => `${name} хочет добавить вас в друзья`,
    friend_accepted: (name) => `${name} теперь у вас в друзьях`,
    room_invite: (name, room) => `${name} добавляет вас в комнату «${room}»`,
  },
};

/** End-to-end encrypted content is a JSON object with a version. */
function isCiphertext(content: string): boolean {
  return content.startsWith("{") && content.includes('"ciphertext"');
}

export function notificationsModule(context: Context): NotificationsModule {
  const notifications = () => context.collection("notifications");
  const write = (
    id: string,
    options: { signal?: AbortSignal } | undefined,
    work: Parameters<typeof context.write>[2],
  ) => context.write(options, { collection: "notifications", id }, work);

  return {
    async getNotifications(options = {}) {
      const limit = Math.max(1, Math.min(options.limit ?? 50, 500));
      if (options.before && !/^[\d\-: .TZ]+$/.test(options.before))
        throw new InvalidError("before: not a cursor of an earlier page.");
      const filter = [`user=${quoted(context.me())}`, options.before ? `created<${quoted(options.before)}` : ""]
        .filter(Boolean)
        .join(" && ");
      const { items } = await context.call(options, (request) =>
        notifications().getList(1, limit, {
          ...request,
          filter,
          sort: "-created",
          expand: NOTIFICATION_PARTS,
          skipTotal: true,
        }),
      );
      const last = items.length === limit ? items.at(-1) : undefined;
      return {
        notifications: items.map((record) => toNotification(record, context.language)),
        cursor: last ? text(last.created) : null,
      };
    },
    async markNotificationAsRead(id, options) {
      await write(id, options, (request) => notifications().update(id, { read: true }, request));
    },
    async deleteNotification(id, options) {
      await context.route("DELETE", `notifications/${encodeURIComponent(id)}`, undefined, options);
    },
  };
}

interface Entry extends Omit<Achievement, "name" | "description" | "max_progress" | "unlocked_at"> {
  name: { en: string; ru: string };
  description: { en: string; ru: string };
  max: number;
  unlocked_at: string;
}

/** Minutes east of UTC, for conditions about the hour or the day. */
const zone = () => -new Date().getTimezoneOffset();

export function achievementsModule(context: Context): AchievementsModule {
  return {
    async getAchievements(options) {
      const path = `users/${options?.userId ?? context.me()}/achievements?zone=${zone()}`;
      const { achievements } = await context.route<{ achievements: Entry[] }>("GET", path, undefined, options);
      return {
        achievements: achievements.map(({ name, description, max, unlocked_at, ...entry }) =>
          present({
            ...entry,
            name: name[context.language],
            description: description[context.language],
            max_progress: max,
            unlocked_at: date(unlocked_at),
          }),
        ),
      };
    },
    async unlockAchievement(achievementId, options) {
      const path = `achievements/${encodeURIComponent(achievementId)}/unlock`;
      try {
        await context.route("POST", path, { zone: zone() }, options);
      } catch (error) {
        if (!(error instanceof BackendError) || error.code !== "unsupported") throw error;
        throw new UnsupportedError("unlockAchievement", "the server cannot check this condition.", { cause: error });
      }
    },
  };
}

interface RawPoll {
  id: string;
  room: string;
  message: string;
  author: string;
  question: string;
  anonymous: boolean;
  created: string;
  options: PollOption[];
  mine: number | null;
}

function toPoll({ room, message, author, created, mine, ...rest }: RawPoll): Poll {
  const { id, question, options, anonymous } = rest;
  return present({
    ...{ id, question, options, anonymous },
    room_id: room,
    message_id: message,
    created_by: author,
    created_at: date(created) ?? "",
    my_vote: mine ?? undefined,
  });
}

export function pollsModule(context: Context): PollsModule {
  return {
    async createPoll(roomId, question, options, anonymous = false, call) {
      const body = { room: roomId, question, options, anonymous };
      return { poll: toPoll(await context.route<RawPoll>("POST", "polls", body, call)) };
    },
    getPoll: async (pollId, options) => ({
      poll: toPoll(await context.route<RawPoll>("GET", `polls/${pollId}`, undefined, options)),
    }),
    votePoll: async (pollId, optionIndex, options) => ({
      poll: toPoll(await context.route<RawPoll>("POST", `polls/${pollId}/vote`, { option: optionIndex }, options)),
    }),
  };
}
