/// <reference path="../pb_data/types.d.ts" />

// Original names and sizes of the files of messages, by stored name: {"a1b2c3.pdf": {name, size}}. PocketBase's own names
// keep only Latin letters, digits, dot, dash and underscore. The server writes the field; see pb_hooks/konvert/messages.js.
migrate(
  (app) => {
    const messages = app.findCollectionByNameOrId("messages");
    messages.fields.add(new JSONField({ name: "file_notes", maxSize: 32 << 10 }));
    app.save(messages);
  },
  (app) => {
    const messages = app.findCollectionByNameOrId("messages");
    messages.fields.removeByName("file_notes");
    app.save(messages);
  },
);
