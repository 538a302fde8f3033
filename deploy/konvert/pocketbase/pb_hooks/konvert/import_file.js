// Imported files: avatars of users and rooms, and the files that users have sent.

const { refuse, answer, transaction, find } = require(`${__hooks}/konvert/call.js`);
const { importing, keepTime, reasonOf } = require(`${__hooks}/konvert/import_records.js`);

/** Field of the file by kind. */
const FIELDS = { users: "avatar", rooms: "avatar", files: "file" };

/**
 * A multipart request: `meta` is {kind, id, name, owner?, path?, created?}, `file` the content. The name ends in a hash
 * of the content; a record with that name is unchanged.
 */
function save(e) {
  return answer(e, () => {
    const [file] = e.findUploadedFiles("file");
    const meta = JSON.parse(e.request.formValue("meta"));
    const field = FIELDS[meta.kind];
    if (!field) refuse.invalid("kind must be users, rooms or files.");
    if (!/^[A-Za-z0-9_.-]{5,150}$/.test(meta.name)) refuse.invalid("name: letters, digits, dot, dash and underscore.");
    file.name = meta.name;
    try {
      return transaction(e.app, (tx) => store(tx, meta, field, file));
    } catch (err) {
      if (err.status && err.code) throw err;
      return { rejected: reasonOf(err) };
    }
  });
}

function store(tx, meta, field, file) {
  let record = find(tx, meta.kind, "id = {:id}", { id: meta.id });
  if (record && record.getString(field) === meta.name) return { unchanged: true };
  if (!record) {
    if (meta.kind !== "files") refuse.missing(`No such record in ${meta.kind}.`);
    record = new Record(tx.findCollectionByNameOrId("files"), { id: meta.id, owner: meta.owner, path: meta.path });
  }
  const updated = record.isNew() ? meta.created : record.getString("updated");
  if (record.isNew()) for (const name of ["created", "updated"]) record.setRaw(name, new DateTime(meta.created));
  record.set(field, file);
  tx.saveWithContext(importing(), record);
  keepTime(tx, meta.kind, record, updated);
  return { saved: true };
}

module.exports = { save };
