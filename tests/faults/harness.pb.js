/// <reference path="../pb_data/types.d.ts" />

// Only for tests/faults: the outbox after a number, and its highest number. The gateway's own route would tell as
// well, but calling it tells the hooks in turn that a gateway is there, which changes what is tested.
routerAdd("GET", "/api/faults/events", (e) => {
  const outbox = require(`${__hooks}/gateway/outbox.js`);
  const last = outbox.last(e.app);
  const rows = outbox.after(e.app, Number(e.request.url.query().get("after")), 1000);
  const json = `{"events":[${rows.events}],"last":${Math.max(last, rows.last)}}`;
  return e.blob(200, "application/json", toBytes(json));
});

routerAdd("GET", "/api/faults/last", (e) => {
  return e.json(200, { last: require(`${__hooks}/gateway/outbox.js`).last(e.app) });
});
