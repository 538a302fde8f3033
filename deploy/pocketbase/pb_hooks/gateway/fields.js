/** Whether an update touched this field. Compared as JSON, since fields with several values have no other text. */
function touched(record, original, field) {
  return JSON.stringify(record.get(field)) !== JSON.stringify(original.get(field));
}

module.exports = { touched };
