/**
 * http-graceful-shutdown 4.0.0. README, "Advanced Options Example": `timeout`, `preShutdown` while all sockets are
 * untouched, clean-up in `onShutdown`, `forceExit`.
 */
import type { Server } from "node:http"
import { load } from "../../peers/load.ts"
import { cleanUp, servers } from "./plain.ts"
import { settings } from "./settings.ts"

const gracefulShutdown = load<
  (
    server: Server,
    options: {
      signals: string
      timeout: number
      forceExit: boolean
      preShutdown: () => Promise<void>
      onShutdown: () => Promise<void>
    }
  ) => void
>("http-graceful-shutdown")

let cleaned: Promise<void> | undefined

for (const server of servers()) {
  gracefulShutdown(server, {
    signals: "SIGINT SIGTERM",
    timeout: settings.grace,
    // Of two servers the one that is done first would end the process.
    forceExit: !settings.second,
    preShutdown: () => new Promise((resolve) => setTimeout(resolve, settings.lameDuck)),
    onShutdown: () => (cleaned ??= cleanUp())
  })
}
