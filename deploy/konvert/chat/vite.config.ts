// The build of the chat. The backend adapter is compiled from its sources beside this folder; its two packages come from
// this folder's node_modules.

import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const path = (name: string) => decodeURIComponent(new URL(name, import.meta.url).pathname);

const FIRST =
  /node_modules\/(react|react-dom|scheduler|i18next|react-i18next|zustand)\/|src\/(i18n\/|app\/runtime|model\/session)|backend-adapter\/config/;

export default defineConfig({
  // Relative addresses, so that a built chat works in any folder of any server.
  base: "./",
  plugins: [react()],
  resolve: {
    alias: {
      "@": path("src"),
      "konvert-backend-adapter": path("../backend-adapter"),
      pocketbase: path("node_modules/pocketbase"),
      centrifuge: path("node_modules/centrifuge"),
    },
  },
  build: {
    target: "es2022",
    chunkSizeWarningLimit: 900,
    manifest: true,
    rolldownOptions: {
      output: {
        // A few files instead of many small ones. The first is for the login form; the adapter, the model and the
        // component library, each with its dependencies, load after the form.
        codeSplitting: {
          groups: [
            { name: "first", priority: 4, test: FIRST },
            { name: "adapter", priority: 3, test: /backend-adapter\/|node_modules\/(pocketbase|centrifuge)\// },
            { name: "model", priority: 2, test: /src\/(model|encryption)\// },
            { name: "library", priority: 1, test: /node_modules\/@mantine\// },
          ],
        },
      },
    },
  },
  server: {
    fs: { allow: [path("..")] },
    // `npm run dev` works beside a running `konvert-gateway dev`.
    proxy: { "/api": "http://127.0.0.1:8090", "/config.json": "http://127.0.0.1:8090" },
  },
});
