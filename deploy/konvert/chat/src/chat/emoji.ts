// The emoji of the picker. Everything that the keyboard can enter works too; these are the frequent ones.

export const QUICK = ["👍", "❤️", "😂", "🎉"] as const;

export const EMOJI: readonly string[] = [
  ..."👍 👎 ❤️ 🔥 🎉 👏 🙏 💪 👌 🤝 👋 ✌️ 🤔 👀 💯 ✅".split(" "),
  ..."😀 😄 😁 😂 🤣 😊 😇 🙂 😉 😍 🥰 😘 😋 😎 🤩 🥳".split(" "),
  ..."🤗 🤭 🤫 😐 😏 🙄 😬 😴 🤒 😵 😕 😟 😢 😭 😤 😡".split(" "),
  ..."😱 😳 🥺 😅 🤯 🤷 🤦 🙈 💔 💙 💚 ⭐ ☀️ 🌈 ☕ 🍕".split(" "),
  ..."🍰 🍺 🎁 🎂 🎵 ⚽ 🏆 🚀 🚗 ✈️ 🏠 💡 📌 📎 📅 ⏰".split(" "),
  ..."💻 📱 🐛 🔧 🔒 🔑 ❓ ❗ ⚠️ ❌ ➕ 🆗 🆕 🐱 🐶 🦊".split(" "),
];
