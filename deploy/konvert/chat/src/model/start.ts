// Start of the model's parts after a login, and their end, in order.

import type { User } from "konvert-backend-adapter/interface";
import { closeChosenFiles } from "./chosenFiles";
import { closeConnection, openConnection } from "./connection";
import { openDrafts } from "./drafts";
import { closeFriends, openFriends } from "./friends";
import { closeNotifications, openNotifications } from "./notifications";
import { closePeople, rememberPeople } from "./people";
import { closePolls } from "./polls";
import { closeRooms, openRooms } from "./rooms";
import { closeSecrecy, openSecrecy } from "./secrecy";
import { closeSending } from "./sending";
import { closeTimelines } from "./timeline";
import { closeTyping } from "./typing";

export async function startChat(user: User): Promise<void> {
  openDrafts(user.id);
  rememberPeople([user]);
  openConnection();
  openRooms(user.id);
  await openSecrecy(user); // nothing is sent before
  openFriends(user.id);
  openNotifications(user.id);
}

export function stopChat(): void {
  closeSending();
  closeTimelines();
  closePolls();
  closeChosenFiles();
  closeNotifications();
  closeTyping();
  closeFriends();
  closeRooms();
  closePeople();
  closeConnection();
  closeSecrecy();
}
