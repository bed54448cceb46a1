"""Static files under names that hold a hash of their content, so that a browser may keep them for ever."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """Also rewrites the imports of ES modules.

    Without that a module's own name changes with its content, but those it imports keep theirs: after an upgrade a
    browser would run new modules with old ones.
    """

    support_js_module_import_aggregation = True
