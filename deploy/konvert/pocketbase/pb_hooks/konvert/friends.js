// Friendship: an accepted friend request, in either direction.

const { refuse, caller, writer, answer, transaction, find, create } = require(`${__hooks}/konvert/call.js`);
const { notify } = require(`${__hooks}/konvert/notifications.js`);
const { isBlocked } = require(`${__hooks}/konvert/rooms.js`);

function request(tx, from, to) {
  return find(tx, "friend_requests", "from = {:from} && to = {:to}", { from, to });
}

/** Asks a user. A request of the same users in the other direction is accepted instead. */
function ask(e) {
  return answer(e, () => {
    const me = writer(e);
    const other = e.request.pathValue("id");
    if (other === me.id) refuse.invalid("Nobody can befriend themselves.");
    return transaction(e.app, (tx) => {
      if (!find(tx, "users", "id = {:id} && deleted = false", { id: other })) refuse.missing("No such user.");
      if (isBlocked(tx, me.id, other)) refuse.forbidden("One of the two users blocks the other.");
      const [mine, theirs] = [request(tx, me.id, other), request(tx, other, me.id)];
      if ([mine, theirs].some((r) => r && r.getString("status") === "accepted"))
        refuse.conflict("You are friends already.");
      if (theirs && theirs.getString("status") === "pending") return settle(tx, theirs, "accepted", me.id);
      if (mine)
        refuse.conflict(
          mine.getString("status") === "pending" ? "The request is pending." : "The request was rejected.",
        );
      const made = create(tx, "friend_requests", { from: me.id, to: other, status: "pending" });
      notify(tx, { user: other, type: "friend_request", from: me.id, request: made.id });
      return { id: made.id, status: "pending" };
    });
  });
}

function respond(e, status) {
  return answer(e, () => {
    const me = caller(e);
    return transaction(e.app, (tx) => {
      const found = find(tx, "friend_requests", "id = {:id}", { id: e.request.pathValue("id") });
      if (!found || ![found.getString("from"), found.getString("to")].includes(me.id))
        refuse.missing("No such request.");
      if (found.getString("to") !== me.id) refuse.forbidden("Only the receiver may answer a request.");
      if (found.getString("status") === status) return { id: found.id, status }; // a repeated call
      if (found.getString("status") !== "pending") refuse.conflict("The request was answered before.");
      return settle(tx, found, status, me.id);
    });
  });
}

/** Answers a request: the sender is notified of a friendship, and the receiver's notification goes. */
function settle(tx, found, status, me) {
  found.set("status", status);
  tx.save(found);
  const from = found.getString("from");
  const filter = "user = {:me} && from = {:from} && type = 'friend_request'";
  for (const notification of tx.findRecordsByFilter("notifications", filter, "", 0, 0, { me, from }))
    tx.delete(notification);
  if (status === "accepted") {
    const other = request(tx, me, from);
    if (other) tx.delete(other); // an older request in the other direction
    notify(tx, { user: from, type: "friend_accepted", from: me });
  }
  return { id: found.id, status };
}

/** Ends a friendship, or takes a pending request back. */
function remove(e) {
  return answer(e, () => {
    const me = caller(e);
    const other = e.request.pathValue("id");
    return transaction(e.app, (tx) => {
      const found = [request(tx, me.id, other), request(tx, other, me.id)].filter(
        (r) => r && r.getString("status") !== "rejected",
      );
      const mine = found.filter((r) => r.getString("status") === "accepted" || r.getString("from") === me.id);
      if (mine.length === 0) refuse.missing("This user is not a friend.");
      for (const record of mine) tx.delete(record);
    });
  });
}

module.exports = { ask, remove, accept: (e) => respond(e, "accepted"), reject: (e) => respond(e, "rejected") };
