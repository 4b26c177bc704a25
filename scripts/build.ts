/**
 * Builds the library into `dist`: declarations file by file, code in a few. To start, Node takes half a millisecond a file,
 * and a program that imports `effect-kms/Kms` and `effect-kms/KmsHttp` would load more than forty.
 */
import { execFileSync } from "node:child_process"
import { globSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"
import { build } from "rolldown"

/** The files that a module loads, itself included. */
const reach = (file: string, reached = new Set<string>()): Set<string> => {
  if (reached.has(file)) return reached
  reached.add(file)
  for (const [, path] of readFileSync(file, "utf8").matchAll(/^(?:import|export) (?!type )[^"]*from "(\.[^"]*)"/gm)) {
    reach(resolve(file, "..", path!), reached)
  }
  return reached
}
const [kms, http, tcp] = ["Kms", "KmsHttp", "KmsTcp"].map((name) => reach(resolve(`src/${name}.ts`))) as [
  Set<string>,
  Set<string>,
  Set<string>
]
// What every program loads, what each that listens does, and what only HTTP needs: nobody loads more than that.
const groups = [
  { name: "core", test: (id: string) => kms.has(id) },
  { name: "listener", test: (id: string) => http.has(id) && tcp.has(id) },
  { name: "http", test: (id: string) => http.has(id) }
]

rmSync("dist", { recursive: true, force: true })
execFileSync("tsc", ["--project", "tsconfig.build.json"], { stdio: "inherit" })
await build({
  input: globSync("src/Kms*.ts"),
  external: /^[^./]/,
  platform: "node",
  tsconfig: "tsconfig.json",
  output: {
    dir: "dist",
    format: "esm",
    sourcemap: true,
    // They are published themselves.
    sourcemapExcludeSources: true,
    // Those for whoever reads are in the declarations.
    comments: { annotation: true, jsdoc: false, legal: false },
    // Nobody can import what is in there.
    chunkFileNames: "internal/[name]-[hash].js",
    codeSplitting: { groups: groups.map((group, index) => ({ ...group, priority: groups.length - index })) }
  },
  logLevel: "warn"
})
// It only names the others, and has to do so file by file: their namespaces would be made anew in each bundle.
writeFileSync("dist/index.js", readFileSync("src/index.ts", "utf8").replaceAll('.ts"', '.js"'))
