/// <reference path="../pb_data/types.d.ts" />

// Connects PocketBase to the gateway. Every change of a relayed collection, and every change that decides about access
// to channels, is written to the outbox in the same transaction, posted to the gateway after the commit, and kept at
// least until the gateway has confirmed it.
//
// PocketBase runs each handler in a separate JavaScript engine, without the variables of this file. Therefore each
// handler starts with a require.

require(`${__hooks}/gateway/startup.js`).load(); // checks PocketBase's version, the environment and the config

onBootstrap((e) => {
  e.next();
  require(`${__hooks}/gateway/startup.js`).checkSchema(e.app);
});

// Two functions in the app's store, which register the hooks of a collection (see gateway/listening.js). The hooks run
// for every write in the collection and keep the required module: looking up the file would take longer than most hook
// calls.
const listening = require(`${__hooks}/gateway/listening.js`);

$app.store().set(listening.REGISTER, (id) => {
  onRecordCreateExecute((e) => (globalThis.gatewayOutbox ??= require(`${__hooks}/gateway/outbox.js`)).create(e), id);
  onRecordUpdateExecute((e) => (globalThis.gatewayOutbox ??= require(`${__hooks}/gateway/outbox.js`)).update(e), id);
  onRecordDeleteExecute((e) => (globalThis.gatewayOutbox ??= require(`${__hooks}/gateway/outbox.js`)).remove(e), id);
});

$app.store().set(listening.REGISTER_AFTER, (collection) => {
  onRecordAfterCreateSuccess(
    (e) => (globalThis.gatewayAfter ??= require(`${__hooks}/gateway/after.js`)).committed(e),
    collection,
  );
  onRecordAfterUpdateSuccess(
    (e) => (globalThis.gatewayAfter ??= require(`${__hooks}/gateway/after.js`)).committed(e),
    collection,
  );
  onRecordAfterDeleteSuccess(
    (e) => (globalThis.gatewayAfter ??= require(`${__hooks}/gateway/after.js`)).committed(e),
    collection,
  );
});

onCollectionCreateExecute((e) => require(`${__hooks}/gateway/outbox.js`).collectionChanged(e));
onCollectionUpdateExecute((e) => require(`${__hooks}/gateway/outbox.js`).collectionChanged(e));
onCollectionDeleteExecute((e) => require(`${__hooks}/gateway/outbox.js`).collectionChanged(e));

onCollectionAfterCreateSuccess((e) => require(`${__hooks}/gateway/outbox.js`).collectionCommitted(e));
onCollectionAfterUpdateSuccess((e) => require(`${__hooks}/gateway/outbox.js`).collectionCommitted(e));
onCollectionAfterDeleteSuccess((e) => require(`${__hooks}/gateway/outbox.js`).collectionCommitted(e));

// After a rollback PocketBase has reloaded its collections, and the hooks reload the schema.
onCollectionAfterCreateError((e) => require(`${__hooks}/gateway/outbox.js`).collectionRestored(e));
onCollectionAfterUpdateError((e) => require(`${__hooks}/gateway/outbox.js`).collectionRestored(e));
onCollectionAfterDeleteError((e) => require(`${__hooks}/gateway/outbox.js`).collectionRestored(e));

// The gateway calls every few seconds: successful calls are left out of the request log.
const quiet = $apis.skipSuccessActivityLog();
// The gateway's requests are far smaller. The limit is for unknown callers, since the signature is checked only after
// the body has been read.
const small = $apis.bodyLimit(1 << 20);
// The gateways call from a few addresses, which PocketBase's rate limiter would take for a single busy client. A
// handler with the limiter's id replaces the limiter on the gateway's routes.
const unlimited = $apis.skipSuccessActivityLog();
unlimited.id = "pbRateLimit";
unlimited.priority = -1000;
const forGateway = [quiet, small, unlimited];

routerAdd("POST", "/api/gateway/keys", (e) => require(`${__hooks}/gateway/routes.js`).keys(e), ...forGateway);
routerAdd("POST", "/api/gateway/authorize", (e) => require(`${__hooks}/gateway/routes.js`).authorize(e), ...forGateway);
routerAdd("POST", "/api/gateway/visible", (e) => require(`${__hooks}/gateway/routes.js`).visible(e), ...forGateway);
routerAdd("POST", "/api/gateway/view", (e) => require(`${__hooks}/gateway/routes.js`).view(e), ...forGateway);
routerAdd("GET", "/api/gateway/events", (e) => require(`${__hooks}/gateway/routes.js`).events(e), ...forGateway);
routerAdd("POST", "/api/gateway/confirm", (e) => require(`${__hooks}/gateway/routes.js`).confirm(e), ...forGateway);
routerAdd("POST", "/api/gateway/probe", (e) => require(`${__hooks}/gateway/routes.js`).probe(e), ...forGateway);
