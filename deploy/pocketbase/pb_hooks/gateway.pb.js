/// <reference path="../pb_data/types.d.ts" />

// Connects PocketBase to the gateway: every change of a relayed collection, and every change that decides who
// may subscribe to what, is written to the outbox in the same transaction, posted to the gateway after the commit,
// and kept for it to fetch until confirmed.
//
// PocketBase runs each handler in a JavaScript engine of its own, where nothing of this file exists;
// that is why each of them starts with a require.

require(`${__hooks}/gateway/startup.js`).load(); // first PocketBase's version, then the environment and the config

onBootstrap((e) => {
  e.next();
  require(`${__hooks}/gateway/startup.js`).checkSchema(e.app);
});

// Register the hooks of one collection (see gateway/listening.js). They are called for every write in it, hence keep
// what they require: looking up a file takes longer than most of them.
const listening = require(`${__hooks}/gateway/listening.js`);

$app.store().set(listening.REGISTER, (id) => {
  onRecordCreateExecute((e) => (globalThis.gatewayOutbox ??= require(`${__hooks}/gateway/outbox.js`)).create(e), id);
  onRecordUpdateExecute((e) => (globalThis.gatewayOutbox ??= require(`${__hooks}/gateway/outbox.js`)).update(e), id);
  onRecordDeleteExecute((e) => (globalThis.gatewayOutbox ??= require(`${__hooks}/gateway/outbox.js`)).remove(e), id);
});

$app.store().set(listening.REGISTER_AFTER, (collection) => {
  onRecordAfterCreateSuccess((e) => (globalThis.gatewayAfter ??= require(`${__hooks}/gateway/after.js`)).committed(e), collection);
  onRecordAfterUpdateSuccess((e) => (globalThis.gatewayAfter ??= require(`${__hooks}/gateway/after.js`)).committed(e), collection);
  onRecordAfterDeleteSuccess((e) => (globalThis.gatewayAfter ??= require(`${__hooks}/gateway/after.js`)).committed(e), collection);
});

onCollectionCreateExecute((e) => require(`${__hooks}/gateway/outbox.js`).collection(e));
onCollectionUpdateExecute((e) => require(`${__hooks}/gateway/outbox.js`).collection(e));
onCollectionDeleteExecute((e) => require(`${__hooks}/gateway/outbox.js`).collection(e));

onCollectionAfterCreateSuccess((e) => require(`${__hooks}/gateway/outbox.js`).collectionCommitted(e));
onCollectionAfterUpdateSuccess((e) => require(`${__hooks}/gateway/outbox.js`).collectionCommitted(e));
onCollectionAfterDeleteSuccess((e) => require(`${__hooks}/gateway/outbox.js`).collectionCommitted(e));

// Rolled back: PocketBase has read the collections anew, and so do we.
onCollectionAfterCreateError((e) => require(`${__hooks}/gateway/outbox.js`).collectionRestored(e));
onCollectionAfterUpdateError((e) => require(`${__hooks}/gateway/outbox.js`).collectionRestored(e));
onCollectionAfterDeleteError((e) => require(`${__hooks}/gateway/outbox.js`).collectionRestored(e));

// The gateway calls every few seconds; its calls that succeed are not worth a line in the request log.
const quiet = $apis.skipSuccessActivityLog();
// Its questions are far smaller. A caller who is not the gateway is found out only after the body has been read.
const small = $apis.bodyLimit(1 << 20);
// All gateways call from a few addresses, which PocketBase's rate limits would take for one busy client. A handler with
// the limiter's own id stands in its place on these routes.
const unlimited = $apis.skipSuccessActivityLog();
unlimited.id = "pbRateLimit";
unlimited.priority = -1000;

routerAdd("POST", "/api/gateway/keys", (e) => require(`${__hooks}/gateway/routes.js`).keys(e), quiet, small, unlimited);
routerAdd("POST", "/api/gateway/authorize", (e) => require(`${__hooks}/gateway/routes.js`).authorize(e), quiet, small, unlimited);
routerAdd("POST", "/api/gateway/visible", (e) => require(`${__hooks}/gateway/routes.js`).visible(e), quiet, small, unlimited);
routerAdd("POST", "/api/gateway/view", (e) => require(`${__hooks}/gateway/routes.js`).view(e), quiet, small, unlimited);
routerAdd("GET", "/api/gateway/events", (e) => require(`${__hooks}/gateway/routes.js`).events(e), quiet, small, unlimited);
routerAdd("POST", "/api/gateway/confirm", (e) => require(`${__hooks}/gateway/routes.js`).confirm(e), quiet, small, unlimited);
routerAdd("POST", "/api/gateway/probe", (e) => require(`${__hooks}/gateway/routes.js`).probe(e), quiet, small, unlimited);
