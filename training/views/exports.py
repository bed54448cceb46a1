"""Downloading a checkpoint."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from rankloop.errors import Refused
from training.access import get_checkpoint
from training.exporting import Export, prepare_export, tar_of
from training.store import DamagedArtifact


@login_required
def download(request: HttpRequest, slug: str, checkpoint: int) -> HttpResponse | HttpResponseBase:
    """Weights, configuration, recipe and model card in one tar archive."""
    _, found = get_checkpoint(request, slug, checkpoint)
    try:
        return tar_answer(prepare_export(found))
    except (DamagedArtifact, Refused) as error:
        messages.error(request, f"The checkpoint can't be given out. {error}")
        return redirect("checkpoint", slug, checkpoint)


def tar_answer(export: Export) -> StreamingHttpResponse:
    """The archive, sent while it is made."""
    answer = StreamingHttpResponse(tar_of(export), content_type="application/x-tar")
    answer.headers["Content-Disposition"] = f'attachment; filename="{export.name}.tar"'
    answer.headers["Content-Length"] = str(export.size)
    # Weights do not shrink: compressing them on the way would only cost time.
    answer.headers["Content-Encoding"] = "identity"
    return answer
