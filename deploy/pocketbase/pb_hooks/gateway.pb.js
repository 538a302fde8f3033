/// <reference path="../pb_data/types.d.ts" />

// Connects PocketBase to the gateway: every change of a relayed collection is written to the outbox in
// the same transaction, posted to the gateway after the commit, and kept for it to fetch until confirmed.
//
// PocketBase runs each handler in a JavaScript engine of its own, where nothing of this file exists;
// that is why each of them starts with a require.

const config = require(`${__hooks}/gateway/startup.js`).load();

onBootstrap((e) => {
  e.next();
  require(`${__hooks}/gateway/startup.js`).checkSchema(e.app);
});

const relayed = Object.keys(config.relay);

onRecordCreateExecute((e) => require(`${__hooks}/gateway/outbox.js`).create(e), ...relayed);
onRecordUpdateExecute((e) => require(`${__hooks}/gateway/outbox.js`).update(e), ...relayed);
onRecordDeleteExecute((e) => require(`${__hooks}/gateway/outbox.js`).remove(e), ...relayed);

onRecordAfterCreateSuccess((e) => require(`${__hooks}/gateway/delivery.js`).committed(e), ...relayed);
onRecordAfterUpdateSuccess((e) => require(`${__hooks}/gateway/delivery.js`).committed(e), ...relayed);
onRecordAfterDeleteSuccess((e) => require(`${__hooks}/gateway/delivery.js`).committed(e), ...relayed);

// The gateway calls every few seconds; its calls that succeed are not worth a line in the request log.
const quiet = $apis.skipSuccessActivityLog();

routerAdd("POST", "/api/gateway/keys", (e) => require(`${__hooks}/gateway/routes.js`).keys(e), quiet);
routerAdd("POST", "/api/gateway/authorize", (e) => require(`${__hooks}/gateway/routes.js`).authorize(e), quiet);
routerAdd("GET", "/api/gateway/events", (e) => require(`${__hooks}/gateway/routes.js`).events(e), quiet);
routerAdd("POST", "/api/gateway/confirm", (e) => require(`${__hooks}/gateway/routes.js`).confirm(e), quiet);
