/// <reference path="../pb_data/types.d.ts" />

// An example of the server API: push notifications of new messages. The hook selects the members of the room who are
// offline and have not muted the room, and posts their ids to the service at PUSH_URL. Without PUSH_URL, nothing is
// sent.

onRecordAfterCreateSuccess((e) => {
  e.next();
  const url = $os.getenv("PUSH_URL");
  if (!url) return;
  try {
    const { call } = require(`${__hooks}/gateway/server.js`);
    const [room, author] = [e.record.getString("room"), e.record.getString("author")];
    const filter = "room = {:room} && user != {:author} && muted = false";
    const members = e.app.findRecordsByFilter("room_members", filter, "", 0, 0, { room, author });
    const users = members.map((member) => member.getString("user"));
    const offline = [];
    for (let i = 0; i < users.length; i += 500) {
      const some = users.slice(i, i + 500);
      const { statuses } = call("statuses", { users: some });
      offline.push(...some.filter((id) => statuses[id].status === "offline"));
    }
    if (offline.length === 0) return;
    const body = JSON.stringify({ room, message: e.record.id, users: offline });
    $http.send({ method: "POST", url, body, headers: { "Content-Type": "application/json" }, timeout: 2 });
  } catch (err) {
    // The message is saved; an exception would report a failed write to the author.
    e.app.logger().error("push: the notifications of a message were not sent", "error", String(err));
  }
}, "messages");
