// The version of these hooks, the same as the gateway's. The gateway compares the two and says which side is older.

module.exports = "0.1.0";
