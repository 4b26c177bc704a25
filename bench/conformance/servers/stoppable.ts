/** stoppable 1.1.0. README, "Usage": `stoppable(server, grace)`, and `server.stop(callback)`. */
import type { Server } from "node:http"
import { load } from "../../peers/load.ts"
import { onSignal, servers } from "./plain.ts"
import { settings } from "./settings.ts"

type Stoppable = Server & { stop: (done: (error?: Error) => void) => void }

const stoppable = load<(server: Server, grace: number) => Stoppable>("stoppable")

const all = servers((server) => stoppable(server, settings.grace)) as ReadonlyArray<Stoppable>

onSignal(() =>
  Promise.all(
    all.map(
      (server) =>
        new Promise<void>((resolve, reject) =>
          server.stop((error) => (error instanceof Error ? reject(error) : resolve()))
        )
    )
  )
)
