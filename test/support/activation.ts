/**
 * Opens a socket and hands it to `activated.ts` as descriptor 3, as systemd does, then lets go of it. Takes the path of a
 * Unix socket, or `tcp`. Ends as the program ends.
 */
import { spawn } from "node:child_process"
import { linkSync, unlinkSync } from "node:fs"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"

const at = process.argv[2]!
const program = fileURLToPath(new URL("activated.ts", import.meta.url))

const server = createServer()
server.listen(at === "tcp" ? { port: 0, host: "127.0.0.1" } : at, () => {
  const { fd } = (server as unknown as { readonly _handle: { readonly fd: number } })._handle
  const child = spawn(process.execPath, [program], { stdio: ["ignore", "inherit", "inherit", fd] })
  // Closing removes the file too, so it gets a second name meanwhile.
  if (at !== "tcp") linkSync(at, `${at}.kept`)
  server.close(() => {
    if (at === "tcp") return
    linkSync(`${at}.kept`, at)
    unlinkSync(`${at}.kept`)
  })
  const pass = () => child.kill("SIGTERM")
  process.on("SIGTERM", pass)
  child.on("exit", (code) => {
    process.off("SIGTERM", pass)
    process.exitCode = code ?? 1
  })
})
