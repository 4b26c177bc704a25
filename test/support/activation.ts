/**
 * A program that is given its listening socket, as systemd gives it: started without arguments it opens one, hands it as
 * descriptor 3 to a process of the same file, and lets go of it. `tcp` or `unix` says which kind.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Layer } from "effect"
import { HttpServer, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { spawn } from "node:child_process"
import { linkSync, unlinkSync } from "node:fs"
import { createServer } from "node:http"
import { createServer as createNetServer } from "node:net"
import { fileURLToPath } from "node:url"

const launcher = (path: string | undefined) => {
  const server = createNetServer()
  server.listen(path ?? { port: 0, host: "127.0.0.1" }, () => {
    const { fd } = (server as unknown as { readonly _handle: { readonly fd: number } })._handle
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), "activated"], {
      stdio: ["ignore", "inherit", "inherit", fd]
    })
    // Closing removes the file too, so its other name is kept meanwhile.
    if (path !== undefined) linkSync(path, `${path}.kept`)
    server.close(() => {
      if (path === undefined) return
      linkSync(`${path}.kept`, path)
      unlinkSync(`${path}.kept`)
    })
    process.on("SIGTERM", () => child.kill("SIGTERM"))
    child.on("exit", (code) => {
      process.exitCode = code ?? 1
      process.removeAllListeners("SIGTERM")
    })
  })
}

const program = HttpServer.serve(Effect.succeed(HttpServerResponse.text("activated"))).pipe(
  Layer.merge(
    Layer.effectDiscard(
      HttpServer.addressFormattedWith((address) => Effect.sync(() => console.log(`listening on ${address}`)))
    )
  ),
  Layer.provide(KmsHttp.layer(createServer, { fd: 3 }))
)

const [mode, path] = process.argv.slice(2)
if (mode === "activated") NodeRuntime.runMain(Kms.launch(program), { teardown: Kms.teardown })
else launcher(mode === "unix" ? path : undefined)
