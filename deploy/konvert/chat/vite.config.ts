// The build of the chat. The backend adapter is compiled from its sources beside this folder; its two packages come from
// this folder's node_modules.

import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const path = (name: string) => decodeURIComponent(new URL(name, import.meta.url).pathname);

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
        // A few files instead of many small ones: the component library, the adapter with its packages, and the model.
        // They load after the login form.
        codeSplitting: {
          includeDependenciesRecursively: false,
          groups: [
            { name: "library", test: /node_modules\/(@mantine|@floating-ui|react-remove-scroll|react-style-singleton)/ },
            { name: "adapter", test: /backend-adapter\/(?!config)|node_modules\/(pocketbase|centrifuge)\// },
            { name: "model", test: /chat\/src\/(model\/(?!session)|encryption\/)/ },
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
