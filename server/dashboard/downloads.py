"""What can be downloaded of a study: named files of its run, and nothing else of it."""

import io
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from server.dashboard.library import Entry, Library
from server.dashboard.rendering import rendered
from server.run_folder import MODEL_FOLDER, PLAN_FILE, REPORT_FILE, SUMMARY_FILE

EXPORT_FOLDER = "export"  # in the folder of the run
_FILES = {
    REPORT_FILE: "the report, one page that needs no network",
    SUMMARY_FILE: "the results as data",
    PLAN_FILE: "the plan",
}
_FOLDERS = {
    "model.zip": (MODEL_FOLDER, "the encoder, with its card"),
    "export.zip": (EXPORT_FOLDER, "the release: the encoder, its card, and its governance annex"),
}


def offered(entry: Entry) -> list[tuple[str, str]]:
    """The names of what there is, and what each is."""
    run = entry.run
    if run is None:
        return []
    # a link could lead to what is no file of the run
    found = [(name, what) for name, what in _FILES.items() if (run / name).is_file() and not (run / name).is_symlink()]
    for name, (folder, what) in _FOLDERS.items():
        if (run / folder).is_dir() and not (run / folder).is_symlink():
            found.append((name, what))
    return found


def download(library: Library) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        entry = library.entry(request.path_params["key"])
        name = request.path_params["name"]
        run = entry.run if entry else None
        if entry is None or run is None or name not in {one for one, _ in offered(entry)}:
            text = "There is no such file, or no longer."
            return HTMLResponse(rendered("refused.html", title="Not found", text=text), 404)
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        if name in _FOLDERS:
            content = await run_in_threadpool(_zipped, run / _FOLDERS[name][0])
            return Response(content, media_type="application/zip", headers=headers)
        return FileResponse(run / name, media_type="application/octet-stream", headers=headers)

    return answer


def _zipped(folder: Path) -> bytes:
    """Not compressed: weights do not get smaller."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                file.write(path, path.relative_to(folder.parent))
    return content.getvalue()
