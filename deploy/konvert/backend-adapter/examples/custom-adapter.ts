// An adapter of one's own on top of another: an audit log for bans, and no polls.

import { PocketBaseAdapter, UnsupportedError, type CallOptions, type IBackendAdapter } from "../index.js";

/** All methods that stay as they are. */
type Rest = Omit<IBackendAdapter, "banUser" | "createPoll">;

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the constructor assigns the methods of Rest
export class CustomAdapter implements IBackendAdapter {
  constructor(
    private readonly base: IBackendAdapter = new PocketBaseAdapter(),
    private readonly audit: (line: string) => void = console.log,
  ) {
    const { banUser: _ban, createPoll: _poll, ...rest } = base;
    Object.assign(this, rest, { close: () => base.close() });
  }

  async banUser(userId: string, hours?: number, options?: CallOptions): Promise<void> {
    await this.base.banUser(userId, hours, options);
    this.audit(`banned ${userId} for ${hours ?? "unlimited"} hours`);
  }

  async createPoll(): Promise<never> {
    throw new UnsupportedError("createPoll", "this server has no polls.");
  }
}

export interface CustomAdapter extends Rest {}
