/** Plain Node: `server.close()`, as the documentation of `node:http` has it. It has no limit. */
import { onSignal, servers } from "./plain.ts"

const all = servers()

onSignal(() =>
  Promise.all(
    all.map(
      (server) =>
        new Promise<void>((resolve, reject) =>
          server.close((error) => (error === undefined ? resolve() : reject(error)))
        )
    )
  )
)
