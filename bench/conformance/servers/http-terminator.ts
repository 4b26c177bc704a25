/** http-terminator 3.2.0. README, "Usage": `await httpTerminator.terminate()` in place of `server.close()`. */
import type { Server } from "node:http"
import { load } from "../../peers/load.ts"
import { onSignal, servers } from "./plain.ts"
import { settings } from "./settings.ts"

const { createHttpTerminator } = load<{
  createHttpTerminator: (options: { server: Server; gracefulTerminationTimeout: number }) => {
    terminate: () => Promise<void>
  }
}>("http-terminator")

const terminators = servers().map((server) =>
  createHttpTerminator({ server, gracefulTerminationTimeout: settings.grace })
)

onSignal(() => Promise.all(terminators.map((terminator) => terminator.terminate())))
