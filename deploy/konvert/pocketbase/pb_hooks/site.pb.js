/// <reference path="../pb_data/types.d.ts" />

// The scripts and style sheets of the chat, if the chat was built into PocketBase's public folder. PocketBase itself
// serves them without compression and without a lifetime.

if (require(`${__hooks}/konvert/site.js`).assets()) {
  routerAdd(
    "GET",
    "/assets/{path...}",
    (e) => require(`${__hooks}/konvert/site.js`).send(e),
    $apis.skipSuccessActivityLog(),
  );
}
