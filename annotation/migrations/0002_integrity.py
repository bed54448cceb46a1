"""What Django's schema editor can't say: append-only judgments, and rankings held within their comparison."""

from django.db import migrations

APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: add a row that supersedes this one', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON annotation_judgment
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON annotation_rankedcompletion
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""
UNDO_APPEND_ONLY = """
DROP TRIGGER append_only ON annotation_rankedcompletion;
DROP TRIGGER append_only ON annotation_judgment;
DROP FUNCTION refuse_change();
"""

# A ranked completion belongs to the comparison its judgment is about, and to no other.
WITHIN_COMPARISON = """
ALTER TABLE annotation_judgment ADD CONSTRAINT judgment_with_comparison UNIQUE (id, comparison_id);
ALTER TABLE annotation_rankedcompletion
    ADD CONSTRAINT ranked_in_judged_comparison FOREIGN KEY (judgment_id, comparison_id)
        REFERENCES annotation_judgment (id, comparison_id),
    ADD CONSTRAINT ranked_completion_was_shown FOREIGN KEY (comparison_id, completion_id)
        REFERENCES annotation_comparisoncompletion (comparison_id, completion_id);
"""
UNDO_WITHIN_COMPARISON = """
ALTER TABLE annotation_rankedcompletion
    DROP CONSTRAINT ranked_completion_was_shown, DROP CONSTRAINT ranked_in_judged_comparison;
ALTER TABLE annotation_judgment DROP CONSTRAINT judgment_with_comparison;
"""


class Migration(migrations.Migration):
    dependencies = [("annotation", "0001_initial")]

    operations = [
        migrations.RunSQL(APPEND_ONLY, UNDO_APPEND_ONLY),
        migrations.RunSQL(WITHIN_COMPARISON, UNDO_WITHIN_COMPARISON),
    ]
