/** Whether an update changed this field. The values are compared as JSON, which also works for lists and objects. */
function touched(record, original, field) {
  return JSON.stringify(record.get(field)) !== JSON.stringify(original.get(field));
}

module.exports = { touched };
