/// <reference path="../pb_data/types.d.ts" />

// An example of the server API: whoever is in a room, has not muted it and is offline, gets a push notification of a
// new message. Who that is goes to the service at PUSH_URL; without it, nothing is done.

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
    // The message is saved; an exception from here would tell its author that it is not.
    e.app.logger().error("push: nobody was notified", "error", String(err));
  }
}, "messages");
