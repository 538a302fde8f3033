/// <reference path="../pb_data/types.d.ts" />

// Only for tests/faults: how far the outbox is. The gateway's own routes would tell as well, but calling them tells
// the hooks in turn that a gateway is there, which changes what is tested.
routerAdd("GET", "/api/faults/last", (e) => {
  return e.json(200, { last: require(`${__hooks}/gateway/outbox.js`).last(e.app) });
});
