// The frequent emoji, for the picker.

export const QUICK = ["👍", "❤️", "😂", "🎉"] as const;

export const EMOJI: readonly string[] = [
  ..."👍 👎 ❤️ 🔥 🎉 👏 🙏 💪 👌 🤝 👋 ✌️ 🤔 👀 💯 ✅".split(" "),
  ..."😀 😄 😁 😂 🤣 😊 😇 🙂 😉 😍 🥰 😘 😋 😎 🤩 🥳".split(" "),
  ..."🤗 🤭 🤫 😐 😏 🙄 😬 😴 🤒 😵 😕 😟 😢 😭 😤 😡".split(" "),
  ..."😱 😳 🥺 😅 🤯 🤷 🤦 🙈 💔 💙 💚 ⭐ ☀️ 🌈 ☕ 🍕".split(" "),
  ..."🍰 🍺 🎁 🎂 🎵 ⚽ 🏆 🚀 🚗 ✈️ 🏠 💡 📌 📎 📅 ⏰".split(" "),
  ..."💻 📱 🐛 🔧 🔒 🔑 ❓ ❗ ⚠️ ❌ ➕ 🆗 🆕 🐱 🐶 🦊".split(" "),
];
