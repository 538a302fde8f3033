/** Whether an update changed a field. The values are compared as JSON, since lists and objects have no other text. */
function touched(record, original, field) {
  return JSON.stringify(record.get(field)) !== JSON.stringify(original.get(field));
}

module.exports = { touched };
