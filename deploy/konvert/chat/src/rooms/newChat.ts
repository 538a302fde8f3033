// Opening chats: the dialog for a new one, and the direct chat with a person.

import { create } from "zustand";
import { go } from "@/app/route";
import { backend } from "@/model/backend";
import { attempt } from "@/model/problems";
import { putRoom } from "@/model/rooms";

export type NewChatTab = "direct" | "room" | "join";

export const useNewChat = create<{ opened: boolean; tab: NewChatTab }>(() => ({ opened: false, tab: "direct" }));
export const openNewChat = (tab: NewChatTab = "direct"): void => useNewChat.setState({ opened: true, tab });
export const closeNewChat = (): void => useNewChat.setState({ opened: false });

export function openDirect(userId: string): Promise<boolean> {
  return attempt(async () => {
    const { dm } = await backend().createDirectMessage(userId);
    putRoom((await backend().getRoom(dm.id)).room);
    closeNewChat();
    go({ view: "room", room: dm.id });
  });
}
