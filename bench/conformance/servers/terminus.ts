/**
 * @godaddy/terminus 4.12.1. README, "Usage" (clean-up in `onSignal`), and "How to set Terminus up with Kubernetes?"
 * (`beforeShutdown` waits, `useExit0`); both signals, as most of its users have it.
 */
import type { Server } from "node:http"
import { load } from "../../peers/load.ts"
import { cleanUp, servers } from "./plain.ts"
import { settings } from "./settings.ts"

const { createTerminus } = load<{
  createTerminus: (
    server: Server,
    options: {
      signals: ReadonlyArray<string>
      timeout: number
      useExit0: boolean
      healthChecks: Record<string, () => Promise<void>>
      beforeShutdown: () => Promise<void>
      onSignal: () => Promise<void>
    }
  ) => void
}>("@godaddy/terminus")

let cleaned: Promise<void> | undefined

servers((server) => {
  createTerminus(server, {
    signals: ["SIGTERM", "SIGINT"],
    timeout: settings.grace,
    useExit0: true,
    healthChecks: { "/readyz": () => Promise.resolve() },
    beforeShutdown: () => new Promise((resolve) => setTimeout(resolve, settings.lameDuck)),
    // Each of two servers calls it.
    onSignal: () => (cleaned ??= cleanUp())
  })
  return server
})
