// Sends messages to a backend that chooses their ids.

import type { Message } from "../interface.js";
import { present } from "../modules/context.js";
import type { Draft } from "../modules/outbox.js";
import { text } from "../modules/people.js";
import { segment, type Client } from "./client.js";
import type { MessageReader } from "./messages.js";
import { row, toMessage, type Row } from "./records.js";
import { isDirect } from "./rooms.js";

/** Newest messages among which an earlier attempt is searched. */
const SEARCHED = 500;
/** Stored messages that are remembered. */
const KEPT = 5000;
/** How far the clocks of the device and the server may differ, in milliseconds. */
const CLOCKS_MS = 120_000;

/** Stores drafts. The backend chooses ids, so after a lost answer the message is found by content. */
export class Sender {
  /** Ids of attempted drafts; stored messages by draft id. */
  private readonly attempted = new Set<string>();
  private readonly stored = new Map<string, Message>();

  constructor(
    private readonly client: Client,
    private readonly reader: MessageReader,
  ) {}

  /** Stored message of a draft. */
  messageOf(draftId: string): Message | undefined {
    return this.stored.get(draftId);
  }

  async store(draft: Draft): Promise<Message> {
    const isRepeated = this.attempted.has(draft.id) || Date.now() - Date.parse(draft.created) > 5000;
    this.attempted.add(draft.id);
    const earlier = isRepeated ? await this.earlierAttempt(draft) : undefined;
    const message = this.reader.remember(earlier ?? (await this.create(draft)));
    this.attempted.delete(draft.id);
    this.stored.set(draft.id, message);
    if (this.stored.size > KEPT) for (const id of [...this.stored.keys()].slice(0, KEPT / 10)) this.stored.delete(id);
    return message;
  }

  private async create({ room, content, type, replyTo }: Draft): Promise<Message> {
    const body = present({ content, type, replyTo });
    const answer = isDirect(room)
      ? await this.client.post<Row>(`/dm/${segment(room)}/messages`, body)
      : await this.client.post<Row>("/messages", { roomId: room, ...body });
    const raw = row(answer.message);
    return toMessage(text(raw.id) ? raw : answer); // a poll comes with its message
  }

  private async earlierAttempt(draft: Draft): Promise<Message | undefined> {
    const me = this.client.me();
    const since = new Date(Date.parse(draft.created) - CLOCKS_MS).toISOString();
    const taken = new Set([...this.stored.values()].map(({ id }) => id));
    const candidates = await this.reader.newest(draft.room, SEARCHED);
    return candidates.find(
      ({ id, sender_id, content, type, reply_to, created_at }) =>
        sender_id === me &&
        content === draft.content &&
        type === draft.type &&
        reply_to === draft.replyTo &&
        created_at >= since &&
        !taken.has(id),
    );
  }
}
