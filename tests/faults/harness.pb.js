/// <reference path="../pb_data/types.d.ts" />

// Only for tests/faults: the outbox after a sequence number, and its highest number. A call of the gateway's own route
// would tell the hooks about a gateway, which would change the tested behaviour.
routerAdd("GET", "/api/faults/events", (e) => {
  const rows = require(`${__hooks}/gateway/rows.js`);
  const last = rows.last(e.app);
  const page = rows.after(e.app, Number(e.request.url.query().get("after")), 1000);
  const json = `{"events":[${page.events}],"last":${Math.max(last, page.last)}}`;
  return e.blob(200, "application/json", toBytes(json));
});

routerAdd("GET", "/api/faults/last", (e) => {
  return e.json(200, { last: require(`${__hooks}/gateway/rows.js`).last(e.app) });
});
