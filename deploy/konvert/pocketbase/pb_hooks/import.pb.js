/// <reference path="../pb_data/types.d.ts" />

// Routes of konvert-migrate, the import from Supabase; for superusers only. After the move, delete this file and
// konvert/import*.js, except the first-login hook if users without a usable password hash remain.

// A block, since PocketBase runs all files in one scope, in which another file may use the same names.
{
  // An import makes thousands of requests from one address. A handler with the limiter's id replaces the limiter.
  const unlimited = $apis.skipSuccessActivityLog();
  unlimited.id = "pbRateLimit";
  unlimited.priority = -1000;
  const guards = [$apis.requireSuperuserAuth(), $apis.bodyLimit(72 << 20), $apis.skipSuccessActivityLog(), unlimited];

  routerAdd("GET", "/api/konvert/import", (e) => require(`${__hooks}/konvert/import.js`).state(e), ...guards);
  routerAdd(
    "POST",
    "/api/konvert/import/rows/{kind}",
    (e) => require(`${__hooks}/konvert/import.js`).rows(e),
    ...guards,
  );
  routerAdd(
    "POST",
    "/api/konvert/import/read/{kind}",
    (e) => require(`${__hooks}/konvert/import.js`).read(e),
    ...guards,
  );
  routerAdd(
    "POST",
    "/api/konvert/import/remove/{kind}",
    (e) => require(`${__hooks}/konvert/import.js`).remove(e),
    ...guards,
  );
  routerAdd("POST", "/api/konvert/import/file", (e) => require(`${__hooks}/konvert/import_file.js`).save(e), ...guards);
  routerAdd("POST", "/api/konvert/import/done", (e) => require(`${__hooks}/konvert/import.js`).done(e), ...guards);
}

// The first login of users with a password hash unknown to PocketBase: the old backend checks the password once.
onRecordAuthWithPasswordRequest((e) => require(`${__hooks}/konvert/import_login.js`).login(e), "users");
// A new password, such as by a reset link, ends the check by the old backend.
onRecordUpdate((e) => require(`${__hooks}/konvert/import_login.js`).changed(e), "users");
