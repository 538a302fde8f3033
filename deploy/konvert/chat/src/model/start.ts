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

let openedFor = "";

/** The first step, which needs no more than the user's id: connects, and loads the list of rooms. */
export function openRoomList(userId: string): void {
  if (openedFor === userId) return;
  if (openedFor) stopChat();
  openedFor = userId;
  openConnection();
  openRooms(userId);
}

export function startChat(user: User): void {
  openDrafts(user.id);
  rememberPeople([user]);
  openRoomList(user.id);
  openSecrecy(user);
  openFriends(user.id);
  openNotifications(user.id);
}

export function stopChat(): void {
  openedFor = "";
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
